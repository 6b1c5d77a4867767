"""The size of the terminal that libraries read from the environment: one that they can read, and can print in."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

__all__ = ["correct_size"]

_COLUMNS, _LINES = "COLUMNS", "LINES"
_LEAST = 10
"""Columns: in less than four the pages of `--help` never come to an end."""
_MOST_DIGITS = 5


def correct_size(environment: MutableMapping[str, str]) -> None:
    """Remove sizes that are none, and let nothing be narrower than ten columns, whatever says so."""
    for name in (_COLUMNS, _LINES):
        text = environment.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text)):
            environment.pop(name, None)
    columns = int(environment.get(_COLUMNS, 0)) or _of_terminal()
    if 0 < columns < _LEAST:
        environment[_COLUMNS] = str(_LEAST)


def _of_terminal() -> int:
    try:
        return os.get_terminal_size().columns
    except (OSError, ValueError):
        return 0
