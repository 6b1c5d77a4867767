"""Fields of a language model request that users may set, as text: forms handle unions and nulls badly."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError

__all__ = ["ExtraField", "Temperature", "extra_field"]

_HUGE = 1e300
_DEEPEST = 16
# Fields that FlowRL sets itself (normalised by `_bare`) -> the frontier parameter for them; empty: none.
_OURS = {
    "model": "model",
    **dict.fromkeys(("models", "fallbacks"), "fallbacks"),
    **dict.fromkeys(("temperature",), "temperature"),
    **dict.fromkeys(("maxtokens", "maxcompletiontokens", "maxoutputtokens"), "max_output_tokens"),
    **dict.fromkeys(("maxnewtokens", "numpredict", "npredict"), "max_output_tokens"),
    **dict.fromkeys(("responseformat", "tools", "toolchoice", "functions", "functioncall"), "output"),
    "timeout": "timeout_s",
    **dict.fromkeys(("messages", "system", "instructions", "prompt", "input", "contents", "generationconfig"), ""),
    **dict.fromkeys(("stream", "streamoptions", "n", "bestof"), ""),
    # Arguments of OpenAI's client, not request fields.
    **dict.fromkeys(("extrabody", "extraquery"), ""),
}
_SECRET = re.compile(
    r"(?:.*(?:apikey|accesskey|secretkey|privatekey|subscriptionkey|accesstoken|authtoken|apitoken|password|passwd|secret|"
    r"authorization|credentials?))|token|auth|bearer|(?:extra)?headers"
)
"""Keys of secrets, at any depth, normalised by `_bare`."""
_SECRET_TEXT = re.compile(r"(?:Bearer\s|(?:sk|gsk|hf|xai|pplx|nvapi)[-_][\w-]{16}|AIza[\w-]{30}).*", re.DOTALL)


def extra_field(text: str) -> tuple[str, Any]:
    """Return the key and value of KEY=JSON.

    Raises:
        ValueError: another form, a reserved key, or a secret (which the message does not repeat).
    """
    key, equals, content = (part.strip() for part in text.partition("="))
    if _SECRET_TEXT.match(key):
        raise _secret("it")
    _check_key(key)
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        raise ValueError(f'{text[:80]!r} is not KEY=JSON, e.g. reasoning_effort="low"')

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(content, parse_constant=refuse, parse_float=_finite, object_pairs_hook=_each_once)
    except PydanticCustomError:
        raise
    except (ValueError, RecursionError):
        if _SECRET_TEXT.match(content.strip("\"'")):
            raise _secret(key) from None
        raise ValueError(f'what follows {key}= is not JSON; a text needs quotes: {key}="low"') from None
    _check_value(key, value)
    return key, value


def _check_key(key: str) -> None:
    if _SECRET.fullmatch(_bare(key)) or _bare(key) == "key":
        raise _secret(key)
    if _bare(key) in _OURS:
        told = {"key": key[:80], "field": _OURS[_bare(key)]}
        raise PydanticCustomError("reserved", "{key} is set by FlowRL itself, from its own settings", told)


def _check_value(key: str, value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"what follows {key}= is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        if _SECRET_TEXT.match(value):
            raise _secret(key)
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"what follows {key}= contains a lone surrogate")
    for inner in value if isinstance(value, dict) else ():
        if _SECRET.fullmatch(_bare(inner)):
            raise _secret(inner)
        _check_value(key, inner, depth + 1)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_value(key, each, depth + 1)


def _secret(key: str) -> PydanticCustomError:
    told = {"key": key[:80]}
    return PydanticCustomError("secret", "{key} looks like a secret, and parameters are recorded and displayed", told)


def _bare(key: str) -> str:
    return re.sub(r"[\s_-]", "", key.lower())


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise PydanticCustomError("twice", "has {key} more than once", {"key": twice[:80]})
    return found


def _as_text(value: Any) -> Any:
    """Return a number as its shortest text: campaigns recorded earlier stored numbers here."""
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
        raise ValueError("must be a number from 0 to 2, or empty")
    return str(_as_text(number))


def _checked_extra(text: str) -> str:
    extra_field(text)
    return text


Temperature = Annotated[str, BeforeValidator(_as_text), AfterValidator(_checked_temperature)]
ExtraField = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_checked_extra)]
