"""What is wrong with input that pydantic refuses, in a person's words: the field, the problem, the remedy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flowrl_core.errors import InputError

__all__ = ["refusal", "shown", "sentence"]

_MOST_SHOWN = 60
_OWN = ("name", "number", "twice")
"""Types of errors that our own validators raise: their messages are words already."""
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table of fields",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_attributes_type": "must be a table of fields",
    "model_type": "must be a table of fields",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be a text",
    "string_unicode": "must be a text",
    "too_long": "must have at most {max_length} entries",
    "value_error": "{error}",
}


def refusal(
    exc: ValidationError, name: Callable[[str], str] = str, *, model: type[BaseModel] | None = None
) -> InputError:
    """The first thing that is wrong, as an error of ours.

    Args:
        name: how the person wrote a field, by its path with dots between (`training.frames`).
        model: that refused: a field that it does not have is told with the nearest that it has.
    """
    first = exc.errors()[0]
    where = name(".".join(str(part) for part in first["loc"]) or "parameters")
    if first["type"] == "extra_forbidden":
        return InputError(where, "there is no such parameter", _nearest(first["loc"], model))
    return InputError(where, sentence(first), "Correct the value")


def sentence(error: ErrorDetails) -> str:
    """What is wrong with a value, and the value."""
    known = _WORDS.get(error["type"], "cannot be used").format_map(error.get("ctx", {}))
    words = error["msg"] if error["type"] in _OWN else known
    return words if error["type"] == "missing" else f"{words} (got {shown(error['input'])})"


def shown(value: Any) -> str:
    """The value as a message shows it: no more of it than is needed to know it again."""
    if value is None:
        return "null, which is also what becomes of NaN and infinity in JSON"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}infinity"
    if isinstance(value, str) and value.strip().lstrip("+-").lower() in ("nan", "inf", "infinity"):
        return shown(float(value))
    if isinstance(value, (BaseModel, dict)):
        return "a table of fields"
    if isinstance(value, int) and abs(value) > 10**_MOST_SHOWN:
        return f"a number of more than {_MOST_SHOWN} digits"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]} ... ({len(str(value))} characters)"


def _nearest(path: Sequence[int | str], model: type[BaseModel] | None) -> str:
    for part in path[:-1]:
        fields = model.model_fields if model is not None else {}
        kind = fields[str(part)].annotation if str(part) in fields else None
        model = cast("type[BaseModel]", kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    near = difflib.get_close_matches(str(path[-1]), model.model_fields if model else (), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else "Remove it or correct its name"
