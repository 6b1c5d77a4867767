"""How the command line prints: rich tables for people, as wide as their terminal; JSON for programs."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["console", "make_table", "number", "percent", "print_json", "print_table", "say", "seconds"]

MISSING = "-"
_NO_LIMIT = 100_000
_GAP = 2
_NARROW = (10, 20)
"""Columns that a text keeps at least, if it is longer: on a narrow terminal, and on a wide one."""
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters other than the end of a line, and those that turn the direction of what follows."""
_PROSE = 24
"""And a text that is wrapped at its words."""


def console() -> Console:
    """A console on stdout, as wide as the terminal or as COLUMNS says; a pipe or a file has no width."""
    return Console(width=_width(), markup=False, emoji=False, highlight=False, soft_wrap=False)


def say(*lines: str) -> None:
    """Print lines of text; on a terminal they are wrapped at words."""
    out = console()
    for line in lines:
        out.print(Text(_visible(line), overflow="fold"))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    first: Sequence[str] = (),
    prose: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print a table; see `make_table`. Prose that finds no room in it stands below, after the first text of its row.

    Where there is room for one column only, each row is a line of text, wrapped at words.
    """
    rows = [tuple(row) for row in rows]
    table = make_table(columns, rows, first=first, prose=prose, whole=whole)
    if title:
        say(title)
    if len(table.columns) == 1 < len(columns):
        say(*(_in_words(columns, row, [*first, *columns][0]) for row in rows))
        return
    console().print(table)
    shown = {column.header for column in table.columns}
    for at, name in enumerate(columns):
        if name in prose and name not in shown and any(row[at] for row in rows):
            say("", *(f"{row[0]}: {number(row[at])}" for row in rows if row[at]))


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    first: Sequence[str] = (),
    prose: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """A table of texts and numbers: numbers stand to the right, None is a dash, a text's brackets mean nothing.

    Where the terminal is narrower than the table, texts are cut short with an ellipsis, and the least important columns
    are left out.

    Args:
        first: names of columns in the order of their importance; the others follow in theirs.
        prose: columns whose texts are wrapped at words.
        whole: columns whose texts say nothing if they are cut.
    """
    rows = [tuple(row) for row in rows]
    texts = [[MISSING if cell is None else number(cell) for cell in row] for row in rows]
    room, sizes = _width(), {}
    narrow = min(max(_NARROW[0], room // 5), _NARROW[1])
    for at, name in enumerate(columns):
        most = max(cell_len(line) for row in [columns, *texts] for line in row[at].split("\n"))
        is_whole = name in whole or all(_is_figure(row[at]) for row in texts)
        sizes[name] = (most if is_whole else min(most, _PROSE if name in prose else narrow), most)
    ranked = [*first, *(name for name in columns if name not in first)]
    widths = _fitted({name: sizes[name] for name in ranked}, room)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [at for at, name in enumerate(columns) if name in widths]
    for at in shown:
        table.add_column(
            columns[at],
            justify="right" if any(isinstance(row[at], (int, float)) for row in rows) else "left",
            width=widths[columns[at]],
            no_wrap=columns[at] not in prose,
            overflow="ellipsis",
        )
    for row in texts:
        table.add_row(*(Text(row[at]) for at in shown))
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
    return _visible(str(value))


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


def _visible(text: str) -> str:
    """The text without what a terminal obeys: it may come from a language model, or from somebody else's file."""
    return _OBEYED.sub(lambda found: " " if found[0] == "\t" else repr(found[0])[1:-1], text)


def _in_words(columns: Sequence[str], row: Sequence[Any], first: str) -> str:
    """A row as a line: its first text, then each other with the name of its column."""
    cells = {name: cell for name, cell in zip(columns, row, strict=True) if cell is not None and cell != ""}
    name = number(cells.pop(first, MISSING))
    return f"{name}: {', '.join(f'{column} {number(cell)}' for column, cell in cells.items()) or MISSING}"


def _width() -> int:
    """What there is room for: as COLUMNS says, else as the terminal has it; elsewhere there is no limit."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return Console().width if sys.stdout.isatty() else _NO_LIMIT


def _is_figure(text: str) -> bool:
    """Whether it is a number, perhaps with a unit, or none: half of it would be another."""
    return text == MISSING or text[:1].isdigit()


def _fitted(columns: dict[str, tuple[int, int]], room: int) -> dict[str, int]:
    """The width of each column that there is room for.

    Args:
        columns: by importance, name -> the least and the most that it needs.
    """
    taken = dict(columns)
    while len(taken) > 1 and sum(least + _GAP for least, _ in taken.values()) - _GAP > room:
        taken.popitem()
    widths = {name: least for name, (least, _) in taken.items()}
    left = room - sum(widths.values()) - _GAP * (len(taken) - 1)
    for name, (least, most) in taken.items():
        more = max(0, min(left, most - least))
        widths[name] += more
        left -= more
    if len(widths) == 1:
        widths = {name: min(width, room) for name, width in widths.items()}
    return widths
