"""How the command line prints: rich tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["console", "make_table", "number", "percent", "print_json", "seconds"]

MISSING = "-"
_WIDTH_OF_A_PIPE = 160


def console() -> Console:
    """A console on stdout; in a pipe or file it is wide enough that no table is folded at 80 columns."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False, soft_wrap=False)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table of texts and numbers: numbers stand to the right, None is a dash, a text's brackets mean nothing."""
    from rich.text import Text

    rows = [tuple(row) for row in rows]
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, name in enumerate(columns):
        is_number = any(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(MISSING if cell is None else number(cell)) for cell in row))
    return table


def print_json(value: Any) -> None:
    """Prints the value as JSON, the only thing on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def number(value: Any) -> str:
    """A whole number with thousands marked, a fraction with three decimals, a dash for NaN, anything else as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else MISSING
    return str(value)


def percent(value: float | None) -> str:
    """A share as percent with one decimal, or a dash."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """A duration: seconds with one decimal below 100, else minutes and seconds; a dash for None."""
    if value is None:
        return MISSING
    if value < 100:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"
