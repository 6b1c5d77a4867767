"""Providers' HTTP answers: whether a body is an answer, and its token counts."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any

from flowrl_core.llm.completions import completion_of, is_completion
from flowrl_core.llm.error_bodies import excerpt
from flowrl_core.llm.faults import Fault, one_line
from flowrl_core.llm.names import Provider
from flowrl_core.llm.refusals import error_within, refused

__all__ = ["Tokens", "answered", "tokens_told"]

Tokens = tuple[int | None, int | None]


def answered(provider: Provider, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
    """Return the body of an answer with status 2xx.

    Raises:
        Fault: `not_json` if it is not an answer, or the meaning of the error that it holds instead.
    """
    content = _without_heartbeats(content)
    if not content:
        raise Fault("not_json", "the answer has an empty body")
    try:
        body = json.loads(content)
        # Half a surrogate pair can be parsed from JSON but not encoded again.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        kind = one_line(headers.get("content-type", "")) or "unknown"
        what = f"of the type {kind}, not JSON" if "json" not in kind.lower() else f"not JSON ({type(exc).__name__})"
        raise Fault("not_json", f"the answer is {what}: {excerpt(content)}") from None
    if error := error_within(body):
        raise refused(200, headers, error)
    if not isinstance(body, dict) or not _is_answer(provider, body):
        raise Fault("not_json", f"the answer is JSON, but not a model's answer: {excerpt(content)}")
    return completion_of(body) if provider in ("openai", "compatible") else body


def tokens_told(provider: Provider, body: Mapping[str, Any]) -> Tokens:
    """Return the reported tokens (input, output) of the body; None for a count that is not reported."""
    usage = body.get("usageMetadata" if provider == "google" else "usage")
    if not isinstance(usage, Mapping):
        return None, None
    if provider == "google":
        return _total(usage, "promptTokenCount"), _total(usage, "candidatesTokenCount", "thoughtsTokenCount")
    if provider == "anthropic":
        asked = _total(usage, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return asked, _total(usage, "output_tokens")
    return _total(usage, "prompt_tokens"), _total(usage, "completion_tokens")


def _without_heartbeats(content: bytes) -> bytes:
    """Return the body without the heartbeats of gateways: blank lines and lines that begin with a colon.

    They come while the model thinks, also before JSON; `: OPENROUTER PROCESSING`, for example, is a comment of an event
    stream.
    """
    content = content.removeprefix(codecs.BOM_UTF8).strip()
    while content.startswith(b":"):
        content = content.partition(b"\n")[2].lstrip()
    return content


def _total(usage: Mapping[str, Any], first: str, *others: str) -> int | None:
    """Return the sum; None if the first is missing or any is not a count."""
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
    return is_completion(body)
