"""Errors in a command's arguments, in the form of all other errors: the option, the problem, the remedy."""

from __future__ import annotations

from json import JSONDecodeError

from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnusedCliTokensError,
)
from pydantic import BaseModel, ValidationError

from flowrl_cli.request.written import Written
from flowrl_core.refusals import refusal, shown

__all__ = ["usage"]


def usage(exc: CycloptsError) -> str:
    """Return the error as a sentence; of several pydantic errors, the first."""
    if isinstance(exc.__cause__, ValidationError):
        return _refused(exc, exc.__cause__)
    match exc:
        case UnusedCliTokensError():
            return f"unexpected argument {' '.join(map(repr, exc.unused_tokens or ()))}: see the command's --help"
        case RepeatArgumentError():
            return f"{exc.token.keyword}: is given twice. Remove one of them"
        case MissingArgumentError(argument=argument) if argument is not None:
            name = exc.keyword or argument.name
            if name.startswith("-"):
                return f"{name}: needs a value. Write {name} VALUE, or {name}=VALUE where the value begins with -"
            return f"{name}: is missing. Write flowrl {' '.join([*(exc.command_chain or ()), name])}"
        case CoercionError(token=token) if token is not None and token.keyword:
            return _unlike(token.keyword, token.value, exc)
    return str(exc)


def _unlike(option: str, value: str, exc: CoercionError) -> str:
    if isinstance(exc.__cause__, JSONDecodeError):
        return f"{option}: is not JSON (got {shown(value)}). Write each field as an option: {option}.FIELD VALUE"
    if exc.target_type is bool:
        return f"{option}: is a switch (got {shown(value)}). Write {option} alone, or omit it"
    if exc.target_type is int:
        return f"{option}: must be a whole number (got {shown(value)}). Write {option} N"
    return str(exc)


def _refused(exc: CycloptsError, found: ValidationError) -> str:
    group, model = "", None
    if exc.argument is not None:
        group, hint = exc.argument.name.lstrip("-"), exc.argument.hint
        model = hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None
    return str(refusal(found, Written().at(lambda path: f"{group}.{path}".strip(".")), model=model))
