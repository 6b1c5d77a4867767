"""TOML files that people write: configurations and knowledge bases, with or without a byte-order mark."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from flowrl_core.errors import InputError
from flowrl_core.refusals import shown

__all__ = ["read_toml"]

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_ALIKE = dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", 'a straight "') | dict.fromkeys(
    "\u2018\u2019\u201a", "a straight '"
)
_REMEDY = 'Write key = value, texts in straight quotes ("..."), lists in brackets (["...", "..."]), and each key once'


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        InputError: it cannot be read, is not UTF-8, or is not TOML (the line is named and shown).
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise InputError(str(path), exc.strerror or "cannot be read", "Name a readable TOML file") from exc
    try:
        if content.startswith(_WIDE) or b"\0" in content[:4]:
            raise InputError(str(path), "is UTF-16 text, or not text", "Save the file as UTF-8")
        text = content.decode().lstrip("\ufeff")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise InputError(str(path), f"is not UTF-8 text (line {line})", "Save the file as UTF-8") from exc
    try:
        return tomllib.loads(text)
    except RecursionError as exc:
        raise InputError(str(path), "is not valid TOML (nested too deeply)", _REMEDY) from exc
    except ValueError as exc:  # also for a number too long for Python
        problem, remedy = _problem(text, str(exc).partition("; use sys")[0])
        raise InputError(str(path), problem, remedy) from exc


def _problem(text: str, found: str) -> tuple[str, str]:
    """Return what is wrong with text that is not TOML, and the remedy."""
    if re.search(r"\r(?!\n)", text):
        return "has lines that end with a CR only", "Save the file with LF or CRLF line endings"
    place = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", found)
    lines = text.split("\n")
    number = int(place[1]) if place and place[1] else len(lines)
    line = lines[number - 1].strip() if place else ""
    if odd := next((one for one in line.partition("#")[0] if one in _ALIKE), ""):
        return f"is not valid TOML: line {number} has {odd!r} ({shown(line)})", f"Write {_ALIKE[odd]} there"
    return f"is not valid TOML ({found})" + (f": {shown(line)}" if line else ""), _REMEDY
