"""The texts that models are sent: files with `{{field}}` places, filled once, and outside text data_string as data.

The files lie in `prompts/`. The first line of each, `version: N`, is not sent; a test demands another number when the
text below it changes, so that a version names one text.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from flowrl_core.digest import digest
from flowrl_core.installation import data

__all__ = ["PROMPTS", "as_data", "clean", "number", "data_string", "render", "versions"]

PROMPTS: Final = ("judge", "judge_system", "propose", "propose_system")
"""The names of the files."""

_FIELD = re.compile(r"\{\{([a-z_]+)\}\}")
_VERSION = re.compile(r"version: (\d+)\n")
# Controls, formats (which can turn the direction of a line), surrogates, what no font has, and all kinds of space.
_BLANK = frozenset("CZ")
_MOST_ITEMS = 12
_MOST_LEVELS = 4
_MOST_CHARACTERS = 80


def render(name: str, fields: Mapping[str, str]) -> str:
    """The text of a file with its places filled.

    Each value is inserted once: what looks like a place in it stays as it is.

    Args:
        name: one of `PROMPTS`.
        fields: a value for each place of the file, and no others.

    Raises:
        ValueError: there is no such file, or a field is missing or unknown.
    """
    _, text = _file(name)
    places = set(_FIELD.findall(text))
    if wrong := places.symmetric_difference(fields):
        raise ValueError(f"prompt {name}: fields {', '.join(sorted(wrong))} are missing or unknown")
    return _FIELD.sub(lambda place: fields[place[1]], text)


def versions() -> dict[str, str]:
    """The version and the digest of each file, such as `1 0123456789abcdef`."""
    return {name: f"{_file(name)[0]} {digest(_file(name)[1])}" for name in PROMPTS}


def clean(text: str, most: int) -> str:
    """The text in one line: runs of white space, control and format characters as one space, backticks as `'`, cut."""
    line = "".join(" " if unicodedata.category(c)[0] in _BLANK else c for c in text[: 4 * most])
    line = " ".join(line.replace("`", "'").split())
    if len(line) > most or len(text) > 4 * most:
        line = f"{line[: most - 3].rstrip()}..."
    return line


def data_string(text: str, most: int = 200) -> str:
    """Somebody else's text as data: cleaned and cut, as a JSON string of one line that nothing in it can end."""
    return json.dumps(clean(text, most), ensure_ascii=False)


def as_data(value: Any) -> str:
    """Measured values as JSON of one line: texts as `data_string` makes them, numbers with three digits, keys in order.

    What is long or deep is cut.
    """
    return json.dumps(_tidy(value, 0), ensure_ascii=False)


def number(value: float) -> str:
    """The number with three digits; a whole number as it is."""
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _tidy(value: Any, level: int) -> Any:
    if isinstance(value, float):
        return float(f"{value:.3g}") if math.isfinite(value) else str(value)
    if value is None or isinstance(value, int):
        return value
    if level == _MOST_LEVELS or not isinstance(value, (Mapping, list, tuple)):
        return clean(str(value), _MOST_CHARACTERS)
    if isinstance(value, Mapping):
        keys = sorted(value, key=str)[:_MOST_ITEMS]
        return {clean(str(key), _MOST_CHARACTERS): _tidy(value[key], level + 1) for key in keys}
    return [_tidy(item, level + 1) for item in value[:_MOST_ITEMS]]


@lru_cache(maxsize=len(PROMPTS))
def _file(name: str) -> tuple[int, str]:
    """The version and the text below it."""
    if name not in PROMPTS:
        raise ValueError(f"there is no prompt {name!r}: {', '.join(PROMPTS)}")
    whole = data("llm", "prompts", f"{name}.md").read_text(encoding="utf-8")
    head = _VERSION.match(whole)
    if head is None:
        raise ValueError(f"{name}.md does not begin with 'version: N'")
    return int(head[1]), whole[head.end() :].strip() + "\n"
