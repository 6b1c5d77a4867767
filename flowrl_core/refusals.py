"""Pydantic's validation errors in plain words: the field, the problem, the remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, time
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.nearest import did_you_mean, nearest

__all__ = ["refusal", "shown", "sentence"]

_MOST_SHOWN = 60
_OWN = ("name", "number", "reserved", "secret", "twice")
"""Error types of FlowRL's own validators: their messages need no rewording."""
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


def refusal(exc: ValidationError, named: Naming = AS_PATHS, *, model: type[BaseModel] | None = None) -> InputError:
    """Return the first validation error as an InputError, in the notation that the user used.

    Args:
        named: how the user writes a field, given its dotted path (`training.frames`).
        model: the model that rejected the input, for suggesting the nearest name of an unknown field.
    """
    first = exc.errors()[0]
    keys = [str(part) for part in first["loc"] if isinstance(part, str)]
    entry = next((f", entry {part + 1}" for part in first["loc"] if isinstance(part, int)), "")
    where = (named(".".join(keys)) or "parameters") + entry
    if first["type"] == "extra_forbidden":
        return InputError(where, "there is no such parameter", _nearest(keys, model))
    return InputError(where, sentence(first), _remedy(first, keys, named, model))


def sentence(error: ErrorDetails) -> str:
    """Return the problem with a value, and the value."""
    known = _WORDS.get(error["type"], "cannot be used").format_map(error.get("ctx", {}))
    words = error["msg"] if error["type"] in _OWN else known
    return words if error["type"] in ("missing", "secret") else f"{words} (got {shown(error['input'])})"


def shown(value: Any) -> str:
    """Return the value as a message shows it: only enough to recognise it."""
    if value is None:
        return "null, which JSON also uses for NaN and infinity"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}infinity"
    if isinstance(value, str) and value.strip().lstrip("+-").lower() in ("nan", "inf", "infinity"):
        return shown(float(value))
    if isinstance(value, (BaseModel, dict)):
        return "a table of fields"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return f"the {'time' if isinstance(value, time) else 'date'} {value.isoformat()}"
    if isinstance(value, list) and not all(isinstance(one, str | int | float) for one in value):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**_MOST_SHOWN:
        return f"a number of more than {_MOST_SHOWN} digits"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]} ... ({len(str(value))} characters)"


def _remedy(error: ErrorDetails, keys: Sequence[str], named: Naming, model: type[BaseModel] | None) -> str:
    if error["type"] in ("twice", "missing"):
        return "Remove one of them" if error["type"] == "twice" else "Set it"
    if error["type"] == "secret":
        return "Put keys into the environment or a Prefect Secret block (FLOWRL_MODEL_KEY, OPENAI_API_KEY, ...)"
    if error["type"] == "reserved":
        field = error["ctx"]["field"]
        return f"Set {named('.'.join([*keys[:-1], field]))}" if field else "Omit it"
    example = _example(_below(model, keys), error["input"])
    return "Correct the value" if example is None else f"Write, for example, {named.example('.'.join(keys), example)}"


def _example(place: FieldInfo | type[BaseModel] | None, given: Any) -> Any:
    """Return a valid value for the field: the intended one if that is certain; None if none is known."""
    if isinstance(place, FieldInfo):
        if place.annotation == list[str] and isinstance(given, str) and 0 < len(given.strip()) <= _MOST_SHOWN:
            return [given]
        if isinstance(place.default, bool):
            return True
        default = [*(place.examples or ()), place.default][0]
        return None if isinstance(default, BaseModel) or default in ([], "", ...) or place.is_required() else default
    if place is None:
        return None
    name, field = next(iter(place.model_fields.items()))
    return {name: _example(field, None)}


def _below(model: type[BaseModel] | None, keys: Sequence[str]) -> FieldInfo | type[BaseModel] | None:
    """Return the field or the table of fields at a path of the model."""
    place: FieldInfo | type[BaseModel] | None = model
    for key in keys:
        place = place.model_fields.get(key) if isinstance(place, type) else None
        if isinstance(place, FieldInfo) and isinstance(place.annotation, type):
            place = cast("type[BaseModel]", place.annotation) if issubclass(place.annotation, BaseModel) else place
    return place


def _nearest(keys: Sequence[str], model: type[BaseModel] | None) -> str:
    """Return the likely intended field: the same name in another table, else a similar one in the same table."""
    table, wanted = _below(model, keys[:-1]), keys[-1].lower().replace("-", "_") if keys else ""
    fields = table.model_fields if isinstance(table, type) else {}
    near = [path for path in _paths(model) if "." in path and path.split(".")[-1] == wanted and wanted not in fields]
    near = near or nearest(wanted, fields, cutoff=0.6)
    return did_you_mean(near) if near else "Remove it or correct its name"


def _paths(model: type[BaseModel] | None) -> Iterator[str]:
    for name in model.model_fields if model is not None else ():
        table = _below(model, [name])
        yield from (f"{name}.{path}" for path in _paths(table)) if isinstance(table, type) else (name,)
