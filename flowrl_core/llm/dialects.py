"""Request fields that a server refuses: left out after the first refusal."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from flowrl_core.llm.names import ModelName
from flowrl_core.llm.seam import Journal

__all__ = ["Dialect"]

logger = logging.getLogger(__name__)

# The limit on the answer's length has two names. One is always sent: otherwise the answer could cost more than booked.
_OTHER_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_NEEDED = frozenset({"model", "messages", "system", "contents", "generationConfig", "tools", "stream"})
_IN_WORDS = "Answer with one JSON object of this JSON Schema, and with nothing else:"


class Dialect:
    """The request fields that a model's server has refused, kept in the journal beside its answers."""

    def __init__(self, model: ModelName, journal: Journal) -> None:
        self._model = model
        self._journal = journal
        self._key = hashlib.sha256(json.dumps({"refused_by": str(model)}).encode()).hexdigest()
        entry = journal.read(self._key) or {}
        refused = entry.get("refused")
        self._refused = [name for name in refused if isinstance(name, str)] if isinstance(refused, list) else []

    def written(self, content: bytes) -> bytes:
        """Return the body of a request without the fields that this server refuses."""
        if not self._refused:
            return content
        body = json.loads(content)
        for field in self._refused:
            self._leave_out(body, field)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    def learn(self, field: str, sent: bytes) -> bool:
        """Leave the field out from now on; return whether that changes the request that was sent.

        Each field can be learned once: if the server refuses it again, the cause was another.
        """
        body = json.loads(sent)
        if field not in body or field in self._refused or field in _NEEDED:
            return False
        if field in _OTHER_NAME and (not self._has_two_names() or _OTHER_NAME[field] in self._refused):
            return False
        logger.warning("%s does not accept %s: omitted from now on", self._model, field)
        self._refused.append(field)
        self._journal.write(self._key, {"key": self._key, "model": str(self._model), "refused": self._refused})
        return True

    def _has_two_names(self) -> bool:
        return self._model.provider in ("openai", "compatible")

    def _leave_out(self, body: dict[str, Any], field: str) -> None:
        if field not in body:
            return
        value = body.pop(field)
        if field in _OTHER_NAME:
            body.setdefault(_OTHER_NAME[field], value)
        if field == "response_format" and (schema := value.get("json_schema", {}).get("schema")):
            # The prompt now asks for what the server would have enforced.
            text = f"{_IN_WORDS}\n{json.dumps(schema, ensure_ascii=False)}"
            first = body["messages"][0]
            if first["role"] in ("system", "developer") and isinstance(first["content"], str):
                first["content"] = f"{first['content']}\n\n{text}"
            else:
                body["messages"].insert(0, {"role": "system", "content": text})
