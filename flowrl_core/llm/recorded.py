"""A model with its answers kept in a journal: one entry per request, named by the question."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    RetryFeedbackPart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from flowrl_core.llm.aloud import without_thoughts
from flowrl_core.llm.faults import model_error, one_line
from flowrl_core.llm.seam import Journal
from flowrl_core.storage.atomic import crash_point

__all__ = ["RecordedModel", "key_of", "readable", "what_was_wrong"]

logger = logging.getLogger(__name__)

# Fields that name a moment or a place, not an answer. The provider's ids would be sent back to it.
_PASSING_FIELDS = ("timestamp", "run_id", "conversation_id", "provider_response_id", "provider_url", "metadata")


class RecordedModel(WrapperModel):
    """A model that looks into the journal before it asks the wrapped model, and records the answers.

    Attributes:
        keys: of the entries used for the answers, in order.
        responses: those answers.
    """

    def __init__(
        self,
        wrapped: Model,
        *,
        journal: Journal,
        mode: Literal["cached", "record", "replay"],
        asked: Mapping[str, Any],
        form: type[BaseModel],
    ) -> None:
        """Wrap a model for one question.

        Args:
            mode: see `FrontierSpec.journal`.
            asked: what identifies the question besides its messages; it includes `model`, `sample`, `schema` and
                `instructions`.
            form: the answer's schema. The journal keeps texts unchanged; text around the answer is dropped here.
        """
        super().__init__(wrapped)
        self._journal = journal
        self._mode = mode
        self._asked = asked
        self._form = form
        self.keys: list[str] = []
        self.responses: list[ModelResponse] = []

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the journal's answer, or else the model's.

        Raises:
            ModelError: `not_recorded`: the journal has no answer and the model must not be asked; `not_json`: the
                server's answer is not JSON.
        """
        text = readable(messages)
        key = key_of(self._asked, text)
        response = None if self._mode == "record" else self._read(key)
        if response is None:
            if self._mode == "replay":
                raise model_error("not_recorded", f"{self._asked['model']}: the journal has no entry {key}")
            try:
                response = await super().request(messages, model_settings, model_request_parameters)
            except UnexpectedModelBehavior as exc:
                problem = f"{self._asked['model']}: this is not a model's answer: {one_line(exc)}"
                raise model_error("not_json", problem) from None
            crash_point("after_model_answer")
            self._journal.write(key, self._entry(key, text, response))
            crash_point("after_model_record")
        response = without_thoughts(response, self._form)
        self.keys.append(key)
        self.responses.append(response)
        return response

    def _read(self, key: str) -> ModelResponse | None:
        entry = self._journal.read(key)
        if entry is None:
            return None
        try:
            (response,) = ModelMessagesTypeAdapter.validate_python([entry["response"]])
        except (KeyError, ValidationError) as exc:
            logger.warning("the journal's entry %s cannot be read (%s): ignored", key, exc)
            return None
        return response if isinstance(response, ModelResponse) else None

    def _entry(self, key: str, messages: Sequence[Mapping[str, str]], response: ModelResponse) -> dict[str, Any]:
        (dumped,) = ModelMessagesTypeAdapter.dump_python([response], mode="json")
        kept = {name: value for name, value in dumped.items() if name not in _PASSING_FIELDS and value is not None}
        if details := {
            name: value for name, value in (kept.pop("provider_details", {})).items() if name != "timestamp"
        }:
            kept["provider_details"] = details
        return {
            "key": key,
            "model": self._asked["model"],
            "sample": self._asked["sample"],
            "messages": [{"role": "system", "text": self._asked["instructions"]}, *messages],
            "schema": self._asked["schema"],
            "response": kept,
            "input_tokens": response.usage.input_tokens,
            "output_tokens": response.usage.output_tokens,
        }


def key_of(asked: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> str:
    """Return the name of the entry: a hash of everything that can change the answer, and nothing else."""
    content = {**asked, "messages": list(messages)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def readable(messages: Iterable[ModelMessage]) -> list[dict[str, str]]:
    """Return the messages as role and text, in order, without ids and times.

    The format is written by hand, not dumped: fields that the package adds to its messages must not rename entries.
    """
    said = []
    for message in messages:
        if isinstance(message, ModelResponse):
            said.append({"role": "assistant", "text": _spoken(message)})
            continue
        for part in message.parts:
            role = "system" if isinstance(part, SystemPromptPart) else "user"
            said.append({"role": role, "text": _told(part)})
    return said


def what_was_wrong(messages: Iterable[ModelMessage]) -> Iterator[str]:
    """Yield the feedback sent to the model on each malformed answer."""
    for part in itertools.chain.from_iterable(message.parts for message in messages):
        if isinstance(part, RetryFeedbackPart) or (isinstance(part, ToolReturnPart) and part.outcome == "retried"):
            yield _told(part)


def _told(part: Any) -> str:
    if isinstance(part, SystemPromptPart | UserPromptPart):
        return str(part.content)
    if isinstance(part, RetryFeedbackPart):
        return part.model_response()
    if isinstance(part, ToolReturnPart):
        return part.model_response_str()
    raise TypeError(f"nothing here asks with a {type(part).__name__}")


def _spoken(response: ModelResponse) -> str:
    texts = [part.content for part in response.parts if isinstance(part, TextPart)]
    return "\n".join([*texts, *(part.args_as_json_str() for part in response.parts if isinstance(part, ToolCallPart))])
