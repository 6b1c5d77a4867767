"""Fields of a request to a language model that a person may set, as texts: forms show neither unions nor nulls well."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints

__all__ = ["ExtraField", "Temperature", "extra_field"]

_HUGE = 1e300
# What a request is made of: all of it has a setting of its own, or decides what an answer may cost.
_OURS = frozenset(
    (
        *("model", "models", "messages", "system", "contents", "stream", "stream_options", "n", "best_of"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "generationConfig"),
        *("response_format", "tools", "tool_choice", "functions", "function_call"),
    )
)


def extra_field(text: str) -> tuple[str, Any]:
    """The key and value of KEY=JSON.

    Raises:
        ValueError: it is none, or its key is not for people to set.
    """
    key, equals, content = (part.strip() for part in text.partition("="))
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        raise ValueError(f'{text[:80]!r} is not KEY=JSON, as in reasoning_effort="low"')
    if key in _OURS:
        raise ValueError(f"{key} is set by FlowRL itself, from its own settings")

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return key, json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise ValueError(f'what follows {key}= is no JSON; a text needs quotes: {key}="low"') from None


def _as_text(value: Any) -> Any:
    """A number in its shortest form, as campaigns have it that were recorded when this was a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{float(value)!r}".removesuffix(".0") if abs(value) < _HUGE else str(value)


def _checked_temperature(text: str) -> str:
    if not text.strip():
        return ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= 2.0:
        raise ValueError("a temperature is a number from 0 to 2, or empty")
    return str(_as_text(number))


def _checked_extra(text: str) -> str:
    extra_field(text)
    return text


Temperature = Annotated[str, BeforeValidator(_as_text), AfterValidator(_checked_temperature)]
ExtraField = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_checked_extra)]
