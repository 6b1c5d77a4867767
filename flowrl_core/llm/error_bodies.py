"""Parse the body of an error from any server: its status, codes and types, the field it names, its message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowrl_core.llm.faults import one_line

__all__ = ["ErrorBody", "bare", "excerpt", "read_error"]

_LONGEST_EXCERPT = 400
_DEEPEST = 6
_MOST_IN_A_LIST = 8

# Where servers and gateways put an error, or that of the server behind them: OpenAI, Cloudflare, Azure, LiteLLM,
# OpenRouter (JSON in a text), Google, FastAPI and services that wrap its errors (Mistral).
_WITHIN = (
    "error",
    "errors",
    "message",
    "detail",
    "details",
    "innererror",
    "provider_specific_fields",
    "metadata",
    "raw",
)
_STATUS = ("code", "status", "statusCode", "status_code")
_NAMES = ("code", "type", "error_type", "status", "reason")
_WORDS = ("message", "detail", "msg", "error", "raw")
_NOTHING = frozenset({"", "none", "null"})  # LiteLLM writes these for unknown values
_LITELLM = re.compile(r"(?:litellm\.\w+: )+")


@dataclass(frozen=True)
class ErrorBody:
    """An error's body.

    Attributes:
        status: the HTTP status in it; 0 if there is none.
        names: its codes and types, in lower case without _ and -; the outermost and most specific first.
        param: the request field that it concerns; empty if it names none.
        param_name: the code or type next to that field.
        message: its message, in one line.
        pause: the requested waiting time, as written.
        is_moderated: whether it says which part of the question a moderator flagged.
    """

    status: int = 0
    names: tuple[str, ...] = ()
    param: str = ""
    param_name: str = ""
    message: str = ""
    pause: str = ""
    is_moderated: bool = False


def read_error(content: bytes) -> ErrorBody:
    """Return the parsed body. Of nested errors the outermost counts, except that the codes of all are kept."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ErrorBody(message=excerpt(content))
    layers = list(_layers(body))
    named = next((layer for layer in layers if _param(layer)), {})
    words: list[str] = [body] if isinstance(body, str) else []
    for text in (text for layer in layers for text in _texts(layer)):
        if not any(text in other for other in words):
            words.append(text)
    return ErrorBody(
        status=next((number for layer in layers if (number := _number(layer))), 0),
        names=tuple(name for layer in layers for name in _names(layer)),
        param=_param(named),
        param_name=next(iter(_names(named)), ""),
        message=one_line(": ".join(words)) if words else excerpt(content),
        pause=next((pause for layer in layers if isinstance(pause := layer.get("retryDelay"), str)), ""),
        is_moderated=any("flagged_input" in layer for layer in layers),
    )


def excerpt(content: bytes) -> str:
    """Return the beginning of a body, in one line."""
    return one_line(content[:_LONGEST_EXCERPT].decode(errors="replace"))


def bare(name: str) -> str:
    """Return a code or type in the form used for comparison: `BadRequestError` and `bad_request_error` are equal."""
    return re.sub(r"[_\-. ]", "", name.lower())


def _layers(node: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the nested objects that make up an error, outermost first."""
    if depth > _DEEPEST:
        return
    if isinstance(node, str) and node.lstrip().startswith("{"):
        try:
            node = json.loads(node)
        except (ValueError, RecursionError):
            return
    if isinstance(node, list):
        for each in node[:_MOST_IN_A_LIST]:
            yield from _layers(each, depth + 1)
    if isinstance(node, dict):
        yield node
        for key in _WITHIN:
            yield from _layers(node.get(key), depth + 1)


def _number(layer: Mapping[str, Any]) -> int:
    """Return the layer's HTTP status, from a number or digits; 0 if it has none."""
    for code in map(layer.get, _STATUS):
        if isinstance(code, str) and re.fullmatch(r"[45][0-9]{2}", code):
            return int(code)
        if isinstance(code, int) and 400 <= code <= 599:
            return code
    return 0


def _names(layer: Mapping[str, Any]) -> Iterator[str]:
    for value in map(layer.get, _NAMES):
        if isinstance(value, str) and not value.isdecimal() and bare(value) not in _NOTHING:
            yield bare(value)
    if isinstance(message := layer.get("message"), str) and (classes := _LITELLM.match(message)):
        yield from (bare(name) for name in re.findall(r"litellm\.(\w+)", classes[0]))


def _param(layer: Mapping[str, Any]) -> str:
    """Return the request field that the layer names, also from the name of a part: `response_format.json_schema`."""
    param = layer.get("param")
    if isinstance(place := layer.get("loc"), list):  # the form of servers built with FastAPI
        param = next((part for part in place if isinstance(part, str) and part != "body"), "")
    found = re.match(r"[A-Za-z_]\w*", param) if isinstance(param, str) else None
    return found[0] if found and bare(found[0]) not in _NOTHING else ""


def _texts(layer: Mapping[str, Any]) -> Iterator[str]:
    for text in map(layer.get, _WORDS):
        if isinstance(text, str) and text.strip() and not text.lstrip().startswith("{"):
            yield text.strip()
