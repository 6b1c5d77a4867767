"""TOML files of a person: configurations and knowledge bases, with or without a byte-order mark."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from flowrl_core.errors import InputError

__all__ = ["read_toml"]

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: it cannot be read, is not UTF-8, or is no TOML (the line is named).
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise InputError(str(path), exc.strerror or "cannot be read", "Name a TOML file that can be read") from exc
    try:
        if content.startswith(_WIDE):
            raise InputError(str(path), "is UTF-16 text", "Save the file as UTF-8")
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InputError(str(path), "is not UTF-8 text", "Save the file as UTF-8") from exc
    except (ValueError, RecursionError) as exc:  # a number may also be too long for Python
        raise InputError(
            str(path), f"is not valid TOML ({str(exc).partition('; use sys')[0]})", "Correct the file"
        ) from exc
