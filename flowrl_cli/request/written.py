"""The names of a campaign's parameters in errors: as the user wrote them, as options or in a file."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrl_core.errors import InputError
from flowrl_core.naming import Naming, as_override, toml_line

__all__ = ["Written"]

_OPTIONS = {"targets": "--target", "overrides": "--override", "retry": "--retry"}
_FIELDS = ("all", "campaign", "env", "knowledge", "fresh", "from_scratch")
_GROUPS = ("training", "evaluation", "limits", "frontier")


@dataclass(frozen=True)
class Written(Naming):
    """Names a field, given by its path (`training.num_envs`), as the user wrote it or would write it.

    Attributes:
        config: the file, if one was named.
        filed: the paths of the fields that the file sets and no option overrides.
    """

    config: Path | None = None
    filed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: Path | None, filed: Mapping[str, Any], typed: Mapping[str, Any]) -> Written:
        """Return the names for a file's content with the typed options on top."""
        return cls(config, frozenset(_paths(filed)) - frozenset(_paths(typed)))

    def __call__(self, path: str) -> str:
        """Return the field's name."""
        top, _, rest = path.partition(".")
        if self._is_filed(path):
            return f"{self.config}: {path}"
        if top == "overrides":
            return f"--override {rest}" if rest else "--override"
        if top in _OPTIONS or (top in _FIELDS and not rest):
            return _OPTIONS.get(top, f"--{top.replace('_', '-')}")
        if top in _GROUPS:
            return f"--{path.replace('_', '-')}"
        return path

    def example(self, path: str, value: Any) -> str:
        """Return how the user sets the field to this value: an option, or a line of the file."""
        if self._is_filed(path):
            return toml_line(path, value)
        if isinstance(value, dict):
            ((field, value),) = value.items()
            path = f"{path}.{field}"
        if path.startswith("overrides."):
            return f"--override {as_override(path, value)}"
        if isinstance(value, list):
            return " ".join(f"{self(path)} {shlex.quote(str(one))}" for one in value)
        if isinstance(value, bool):
            return self(path)
        return f"{self(path)} {shlex.quote(value) if isinstance(value, str) else json.dumps(value)}"

    def setting(self, path: str, value: Any) -> str:
        """Return how the user sets the field to this value: an option, or a line of the file."""
        return self.example(path, value)

    def _is_filed(self, path: str) -> bool:
        top, _, rest = path.partition(".")
        is_group = not rest and any(one.startswith(f"{path}.") for one in self.filed)
        return path in self.filed or is_group or (top in self.filed and top not in _GROUPS)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Within the block, errors name fields as the user wrote them, unless about a knowledge base or plan."""
        try:
            yield
        except InputError as exc:
            if type(exc) is not InputError or (name := self(exc.field)) == exc.field:
                raise
            raise InputError(name, exc.problem, exc.remedy) from exc


def _paths(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if name in _GROUPS and isinstance(value, dict):
            yield from (f"{name}.{field.replace('-', '_')}" for field in value)
        else:
            yield name.replace("-", "_")
