"""The terminal size in the environment, corrected to one that libraries can parse and print in."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

__all__ = ["correct_size"]

_COLUMNS, _LINES = "COLUMNS", "LINES"
_LEAST = 10
"""Minimum columns: with fewer than four, printing `--help` never ends."""
_MOST_DIGITS = 5


def correct_size(environment: MutableMapping[str, str]) -> None:
    """Remove invalid sizes from the environment, and set COLUMNS to ten where the width is smaller."""
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
