"""How a person writes parameters: what a field is called, and how a value is given to it. Errors show both."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["AS_PATHS", "Naming", "TomlNaming", "as_override", "toml_line"]


class Naming:
    """As forms and Prefect's API have them: fields by their paths (`training.frames`), values as JSON."""

    def __call__(self, path: str) -> str:
        """The field's name."""
        return path

    def example(self, path: str, value: Any) -> str:
        """How the value is written there."""
        if path.startswith("overrides."):
            return json.dumps([as_override(path, value)])
        return json.dumps(value, ensure_ascii=False)

    def at(self, where: Callable[[str], str]) -> Naming:
        """That of fields whose paths `where` gives."""
        return _Moved(self, where)


AS_PATHS = Naming()


class TomlNaming(Naming):
    """As TOML files have them."""

    def example(self, path: str, value: Any) -> str:
        """The line that sets the field."""
        return toml_line(path, value)


class _Moved(Naming):
    def __init__(self, named: Naming, where: Callable[[str], str]) -> None:
        self._named, self._where = named, where

    def __call__(self, path: str) -> str:
        return self._named(self._where(path))

    def example(self, path: str, value: Any) -> str:
        return self._named.example(self._where(path), value)


def toml_line(path: str, value: Any) -> str:
    """The line of a TOML file that sets the field, and the table under which it stands."""
    if path.startswith("overrides."):
        path, value = "overrides", [as_override(path, value)]
    if isinstance(value, dict):
        ((field, value),) = value.items()
        path = f"{path}.{field}"
    table, _, field = path.rpartition(".")
    line = f"{field} = {json.dumps(value, ensure_ascii=False)}"
    return f"{line} under [{table}]" if table else line


def as_override(path: str, value: Any) -> str:
    """SKILL.FIELD=VALUE for the path `overrides.SKILL.FIELD`."""
    return f"{path.removeprefix('overrides.')}={value if isinstance(value, str) else json.dumps(value)}"
