"""Command line output: rich tables for people, as wide as their terminal; JSON for programs."""

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
"""Minimum width of a text column, if the text is longer: on a narrow terminal, and on a wide one."""
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters that terminals obey, except newlines, and those that change the direction of text."""
_PROSE = 24
"""Minimum width of a text that is wrapped at words."""


def console() -> Console:
    """Return a console on stdout, as wide as the terminal or as COLUMNS; a pipe or a file has no width limit."""
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
    """Print a table; see `make_table`. Prose that does not fit is printed below it, after the first text of its row.

    If only one column fits, each row is a line of text, wrapped at words.
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
    """Return a table of texts and numbers: numbers are right-aligned, None is a dash, and brackets are no markup.

    If the table is wider than the terminal, texts are cut with an ellipsis, and the least important columns omitted.

    Args:
        first: names of the most important columns, in order of importance; the others follow in table order.
        prose: columns whose texts are wrapped at words.
        whole: columns whose texts are useless if they are cut.
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
    """Print the value as JSON, the only output on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def number(value: Any) -> str:
    """Return an integer with thousands separators, a fraction with three decimals, a dash for NaN, else the text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else MISSING
    return _visible(str(value))


def percent(value: float | None) -> str:
    """Return a share as percent with one decimal, or a dash."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Return a duration: seconds with one decimal below 100, else minutes and seconds; a dash for None."""
    if value is None:
        return MISSING
    if value < 100:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def _visible(text: str) -> str:
    """Return the text with control characters escaped: it may come from a language model, or from a foreign file."""
    return _OBEYED.sub(lambda found: " " if found[0] == "\t" else repr(found[0])[1:-1], text)


def _in_words(columns: Sequence[str], row: Sequence[Any], first: str) -> str:
    """Return a row as a line: its first text, then each other with the name of its column."""
    cells = {name: cell for name, cell in zip(columns, row, strict=True) if cell is not None and cell != ""}
    name = number(cells.pop(first, MISSING))
    return f"{name}: {', '.join(f'{column} {number(cell)}' for column, cell in cells.items()) or MISSING}"


def _width() -> int:
    """Return the available width: COLUMNS, else the terminal's; no limit for pipes and files."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return Console().width if sys.stdout.isatty() else _NO_LIMIT


def _is_figure(text: str) -> bool:
    """Whether the text is a number, perhaps with a unit, or a dash: cutting it would show another number."""
    return text == MISSING or text[:1].isdigit()


def _fitted(columns: dict[str, tuple[int, int]], room: int) -> dict[str, int]:
    """Return the width of each column that fits.

    Args:
        columns: by importance, name -> its minimum and its maximum width.
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
