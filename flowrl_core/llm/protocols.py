"""What providers' HTTP answers hold: whether a body is an answer, and what it says of tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flowrl_core.llm.faults import Fault, one_line
from flowrl_core.llm.names import Provider
from flowrl_core.llm.refusals import error_within, excerpt, refused

__all__ = ["Tokens", "answered", "tokens_told"]

Tokens = tuple[int | None, int | None]

_LABELS = {"id": "none", "object": "chat.completion", "model": "unknown"}
"""Of a completion, for servers that leave them out."""


def answered(provider: Provider, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
    """The body of an answer with status 2xx.

    Raises:
        Fault: `not_json`: it is none; or what the error means that it holds instead.
    """
    content_type = headers.get("content-type", "")
    if "json" not in content_type.lower():
        problem = f"the answer is of the type {one_line(content_type) or 'unknown'}, not JSON: {excerpt(content)}"
        raise Fault("not_json", problem)
    if not content.strip():
        raise Fault("not_json", "the answer has an empty body")
    try:
        body = json.loads(content)
        # Half a surrogate pair can be read from JSON and never written again.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise Fault("not_json", f"the answer is not JSON ({type(exc).__name__}): {excerpt(content)}") from None
    if error := error_within(body):
        raise refused(200, headers, error)
    if not isinstance(body, dict) or not _is_answer(provider, body):
        raise Fault("not_json", f"the answer is JSON, but no model's answer: {excerpt(content)}")
    if provider in ("openai", "compatible"):
        _join_parts(body["choices"][0]["message"])
        # What the packages above ask for, and FlowRL has no use for.
        body |= {name: body.get(name) or value for name, value in _LABELS.items()}
    return body


def tokens_told(provider: Provider, body: Mapping[str, Any]) -> Tokens:
    """The tokens (asked, answered) that the body tells of; None for what it does not tell."""
    usage = body.get("usageMetadata" if provider == "google" else "usage")
    if not isinstance(usage, Mapping):
        return None, None
    if provider == "google":
        return _total(usage, "promptTokenCount"), _total(usage, "candidatesTokenCount", "thoughtsTokenCount")
    if provider == "anthropic":
        asked = _total(usage, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return asked, _total(usage, "output_tokens")
    return _total(usage, "prompt_tokens"), _total(usage, "completion_tokens")


def _join_parts(message: dict[str, Any]) -> None:
    """Make one text of a content that comes in parts, as of models that think; their thoughts are left out."""
    parts = message.get("content")
    if isinstance(parts, list):
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        message["content"] = "".join(text for text in texts if isinstance(text, str))


def _total(usage: Mapping[str, Any], first: str, *others: str) -> int | None:
    """The sum; None if the first is not told or any is no count."""
    counts = [usage.get(first), *(usage.get(name) or 0 for name in others)]
    total = 0
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            return None
        total += count
    return total


def _is_answer(provider: Provider, body: Mapping[str, Any]) -> bool:
    if provider == "anthropic":
        return isinstance(body.get("content"), list)
    if provider == "google":
        return isinstance(body.get("candidates"), list) or isinstance(body.get("promptFeedback"), dict)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    message = choices[0].get("message")
    return isinstance(message, dict) and isinstance(message.get("content"), str | list | None)
