"""Completions of OpenAI's protocol, reduced to the fields that FlowRL uses and normalised across servers.

Servers add, omit and misspell fields that FlowRL does not need; the client packages refuse the whole answer for any of
these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from flowrl_core.llm.error_bodies import bare, read_error

__all__ = ["completion_of", "generated", "is_completion"]

_FINISHES = {
    **dict.fromkeys(("length", "maxtokens", "maxoutputtokens", "modellength"), "length"),
    **dict.fromkeys(("contentfilter", "sensitive", "safety"), "content_filter"),
    **dict.fromkeys(("toolcalls", "functioncall"), "tool_calls"),
}
"""Finish reasons (see `bare`) as servers write them; any other counts as `stop`."""
_THOUGHTS = ("reasoning_content", "reasoning")
_TEXTS = (None, "text", "output_text")
_COUNTS = ("prompt_tokens", "completion_tokens")
_NOT_WELL_FORMED = frozenset({"jsonvalidatefailed", "toolusefailed", "outputparsefailed"})


def is_completion(body: Mapping[str, Any]) -> bool:
    """Whether the body holds a model's message."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    message = choices[0].get("message")
    return isinstance(message, dict) and isinstance(message.get("content"), str | list | dict | None)


def completion_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice's message with its finish reason and token usage, and nothing else."""
    choice = body["choices"][0]
    given = choice["message"]
    message: dict[str, Any] = {"role": "assistant", "content": _text_of(given.get("content"))}
    for name in ("refusal", *_THOUGHTS):
        if isinstance(given.get(name), str):
            message[name] = given[name]
    if calls := given.get("tool_calls"):
        message["tool_calls"] = [_call(*each) for each in enumerate(calls)] if isinstance(calls, list) else calls
    finish = bare(str(choice.get("finish_reason") or ""))
    return {
        **{name: body[name] if isinstance(body.get(name), str) else "unknown" for name in ("id", "model")},
        "object": "chat.completion",
        "created": 0,
        "choices": [{"index": 0, "finish_reason": _FINISHES.get(finish, "stop"), "message": message}],
        "usage": _usage(body.get("usage")),
    }


def generated(content: bytes) -> dict[str, Any] | None:
    """Return the completion inside a refusal of an answer that did not match the schema; None for other refusals.

    Groq sends such refusals. The completion counts as an ordinary answer: the model gets it back with a list of its
    errors.
    """
    if not _NOT_WELL_FORMED & set(read_error(content).names):
        return None
    error = json.loads(content).get("error")
    text = error.get("failed_generation") if isinstance(error, dict) else None
    return completion_of({"choices": [{"message": {"content": text if isinstance(text, str) else ""}}]})


def _text_of(content: Any) -> str | None:
    """Return the text of a content that is in parts (thoughts are left out) or JSON; None if there is none."""
    if isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    return "".join(_texts(content)) if isinstance(content, list) else content


def _texts(parts: Iterable[Any]) -> Iterable[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") in _TEXTS else part
        if isinstance(text, str):
            yield text


def _call(number: int, call: Any) -> Any:
    """Return a tool call with its arguments as text; an invalid call is returned unchanged, to be refused later."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    identity = call.get("id")
    return {
        "id": identity if isinstance(identity, str) else f"call_{number}",
        "type": "function",
        "function": {"name": function.get("name"), "arguments": text},
    }


def _usage(told: Any) -> dict[str, int] | None:
    asked, answered = (_count(told.get(name)) if isinstance(told, dict) else None for name in _COUNTS)
    if asked is None or answered is None:
        return None
    return {**dict(zip(_COUNTS, (asked, answered), strict=True)), "total_tokens": asked + answered}


def _count(told: Any) -> int | None:
    """Return a count, also from a text or a decimal number; None if it is not a count."""
    found = re.fullmatch(r"([0-9]{1,18})(?:\.0)?", str(told)) if isinstance(told, int | float | str) else None
    return int(found[1]) if found else None
