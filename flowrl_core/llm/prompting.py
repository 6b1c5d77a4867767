"""The prompts of models: template files with `{{field}}` places, filled once, and foreign text as data.

The files are in `prompts/`. The first line of each, `version: N`, is not sent; a test requires a new number when the
text below it changes, so that a version identifies one text.
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
"""The names of the prompt files."""

_FIELD = re.compile(r"\{\{([a-z_]+)\}\}")
_VERSION = re.compile(r"version: (\d+)\n")
# Controls, formats (which can change text direction), surrogates, private and unassigned characters, and spaces.
_BLANK = frozenset("CZ")
_MOST_ITEMS = 12
_MOST_LEVELS = 4
_MOST_CHARACTERS = 80


def render(name: str, fields: Mapping[str, str]) -> str:
    """Return the text of a file with its places filled.

    Each value is inserted once: text in it that looks like a place stays unchanged.

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
    """Return the version and the digest of each file, such as `1 0123456789abcdef`."""
    return {name: f"{_file(name)[0]} {digest(_file(name)[1])}" for name in PROMPTS}


def clean(text: str, most: int) -> str:
    """Return the text in one line: runs of blank and control characters become one space, backticks `'`; cut."""
    line = "".join(" " if unicodedata.category(c)[0] in _BLANK else c for c in text[: 4 * most])
    line = " ".join(line.replace("`", "'").split())
    if len(line) > most or len(text) > 4 * most:
        line = f"{line[: most - 3].rstrip()}..."
    return line


def data_string(text: str, most: int = 200) -> str:
    """Return foreign text as data: cleaned and cut, as a one-line JSON string that nothing in it can end."""
    return json.dumps(clean(text, most), ensure_ascii=False)


def as_data(value: Any) -> str:
    """Return measured values as one line of JSON.

    Texts are as from `data_string`, numbers have three digits, keys are sorted; long or deep values are cut.
    """
    return json.dumps(_tidy(value, 0), ensure_ascii=False)


def number(value: float) -> str:
    """Return the number to three significant digits; a whole number unchanged."""
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
    """Return the version and the text below it."""
    if name not in PROMPTS:
        raise ValueError(f"there is no prompt {name!r}: {', '.join(PROMPTS)}")
    whole = data("llm", "prompts", f"{name}.md").read_text(encoding="utf-8")
    head = _VERSION.match(whole)
    if head is None:
        raise ValueError(f"{name}.md does not begin with 'version: N'")
    return int(head[1]), whole[head.end() :].strip() + "\n"
