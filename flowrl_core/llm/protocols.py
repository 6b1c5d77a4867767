"""What providers' HTTP answers hold: whether a body is an answer, what it says of tokens, what an error means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from flowrl_core.llm.faults import Fault, one_line
from flowrl_core.llm.names import Provider

__all__ = ["Tokens", "answered", "refused", "tokens_told"]

Tokens = tuple[int | None, int | None]

_LONGEST_PAUSE_S = 60.0
_LONGEST_EXCERPT = 400
_NO_SUCH_MODEL = re.compile(r"model.{0,200}(not found|not exist|unknown|unsupported)|(unknown|invalid|no such) model")


def answered(provider: Provider, content_type: str, content: bytes) -> dict[str, Any]:
    """The body of an answer with status 2xx.

    Raises:
        Fault: `not_json`: it is none.
    """
    if "json" not in content_type.lower():
        problem = f"the answer is of the type {one_line(content_type) or 'unknown'}, not JSON: {_excerpt(content)}"
        raise Fault("not_json", problem)
    try:
        body = json.loads(content)
        # Half a surrogate pair can be read from JSON and never written again.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise Fault("not_json", f"the answer is not JSON ({type(exc).__name__}): {_excerpt(content)}") from None
    if not isinstance(body, dict) or not _is_answer(provider, body):
        raise Fault("not_json", f"the answer is JSON, but no model's answer: {_excerpt(content)}")
    return body


def refused(status: int, headers: Mapping[str, str], content: bytes) -> Fault:
    """What a status that is not 2xx means."""
    message = _message(content)
    problem = f"the server answered {status}: {message or 'nothing more'}"
    pause_s = _pause_s(headers.get("retry-after", ""))
    if status in (401, 403):
        return Fault("unauthorized", problem, was_answered=False)
    if status == 404 or (status in (400, 422) and _NO_SUCH_MODEL.search(f"{message} {_excerpt(content)}".lower())):
        return Fault("unknown_model", problem, was_answered=False)
    if status == 429:
        # OpenAI says so where the account has no credit left, which no wait cures.
        is_final = b"insufficient_quota" in content
        return Fault("rate_limited", problem, pause_s=pause_s, is_final=is_final, was_answered=False)
    if status == 408:
        return Fault("timeout", problem, pause_s=pause_s)
    if status >= 500:
        return Fault("server_error", problem, pause_s=pause_s)
    return Fault("bad_request", problem, was_answered=False)


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


def _message(content: bytes) -> str:
    """What an error's body says, in one line."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return _excerpt(content)
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return one_line(message) if isinstance(message, str) else _excerpt(content)


def _excerpt(content: bytes) -> str:
    return one_line(content[:_LONGEST_EXCERPT].decode(errors="replace"))


def _pause_s(retry_after: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, section 10.2.3: a number of seconds, or a date)."""
    retry_after = retry_after.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", retry_after):
        return min(float(retry_after), _LONGEST_PAUSE_S)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    left = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(left, 0.0), _LONGEST_PAUSE_S)
