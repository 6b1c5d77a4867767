"""How users write parameters: field names and value syntax, for error messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["AS_PATHS", "Naming", "TomlNaming", "as_override", "toml_line"]


class Naming:
    """The notation of forms and Prefect's API: dotted field paths (`training.frames`), values as JSON."""

    def __call__(self, path: str) -> str:
        """Return the field's name in this notation."""
        return path

    def example(self, path: str, value: Any) -> str:
        """Return how a user writes this value for the field."""
        if path.startswith("overrides."):
            return json.dumps([as_override(path, value)])
        return json.dumps(value, ensure_ascii=False)

    def setting(self, path: str, value: Any) -> str:
        """Return how a user sets the field, which the text names, to this value: for remedies."""
        return f"{self(path)} = {self.example(path, value)}"

    def at(self, where: Callable[[str], str]) -> Naming:
        """Return this notation for fields whose paths are mapped by `where` first."""
        return _Moved(self, where)


AS_PATHS = Naming()


class TomlNaming(Naming):
    """The notation of TOML files."""

    def example(self, path: str, value: Any) -> str:
        """Return the TOML line that sets the field."""
        return toml_line(path, value)

    def setting(self, path: str, value: Any) -> str:
        """Return the TOML line that sets the field."""
        return toml_line(path, value)


class _Moved(Naming):
    def __init__(self, named: Naming, where: Callable[[str], str]) -> None:
        self._named, self._where = named, where

    def __call__(self, path: str) -> str:
        return self._named(self._where(path))

    def example(self, path: str, value: Any) -> str:
        return self._named.example(self._where(path), value)

    def setting(self, path: str, value: Any) -> str:
        return self._named.setting(self._where(path), value)


def toml_line(path: str, value: Any) -> str:
    """Return the TOML line that sets the field, and the table it belongs under."""
    if path.startswith("overrides."):
        path, value = "overrides", [as_override(path, value)]
    if isinstance(value, dict):
        ((field, value),) = value.items()
        path = f"{path}.{field}"
    table, _, field = path.rpartition(".")
    line = f"{field} = {json.dumps(value, ensure_ascii=False)}"
    return f"{line} under [{table}]" if table else line


def as_override(path: str, value: Any) -> str:
    """Return SKILL.FIELD=VALUE for the path `overrides.SKILL.FIELD`."""
    return f"{path.removeprefix('overrides.')}={value if isinstance(value, str) else json.dumps(value)}"
