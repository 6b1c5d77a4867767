"""Numbers as people write them, read alike in options, files, overrides and forms."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

__all__ = ["Number", "Whole"]

_MOST_DIGITS = 18
"""Maximum digits of a whole number: more is a typo, and does not fit into a database."""
_GROUPED = {
    "a whole number": re.compile(r"[+-]?[1-9]\d{0,2}([.,'\s]\d{3})+"),
    "a number": re.compile(r"[+-]?[1-9]\d{0,2}([,'\s]\d{3})+"),
}
"""Groups of three digits; some countries separate them by a point."""


def _whole(value: Any) -> Any:
    """Return the int if the value is a whole number in any spelling: 200000, 2e5, 200_000, 200000.0."""
    number = _read(value, "a whole number")
    if not isinstance(number, int):
        if not math.isfinite(number) or number != int(number):
            raise _unlike("a whole number")
        number = int(number)
    if abs(number) >= 10**_MOST_DIGITS:
        raise PydanticCustomError("number", "is too large")
    return number


def _number(value: Any) -> Any:
    """Return the float if the value is a finite number in any spelling."""
    number = _read(value, "a number")
    if isinstance(number, int):
        number = number if abs(number) < 10**300 else math.inf
    if not math.isfinite(number):
        raise _unlike("a finite number")
    return float(number)


def _read(value: Any, kind: str) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise _unlike(kind)
    text = value.strip()
    if _GROUPED[kind].fullmatch(text):
        plain = re.sub(r"[.,'\s]", "", text)
        raise PydanticCustomError(
            "number", "must be {kind} without separators between the digits: {plain}?", {"kind": kind, "plain": plain}
        )
    if re.fullmatch(r"[+-]?\d*,\d+", text):
        raise PydanticCustomError("number", "must be {kind}, with a decimal point instead of a comma", {"kind": kind})
    for read in (int, float):
        try:
            return read(text) if text.isascii() else _refuse(kind)
        except ValueError:
            if read is int and len(text) > 4_000:  # Python's int() refuses longer texts
                raise PydanticCustomError("number", "is too large") from None
    raise _unlike(kind)


def _refuse(kind: str) -> float:
    raise _unlike(kind)


def _unlike(kind: str) -> PydanticCustomError:
    return PydanticCustomError("number", "must be {kind}", {"kind": kind})


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
