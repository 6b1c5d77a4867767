"""The catalogue of environments: one entry each, loaded by name. No JAX here.

A shipped environment is a folder of `flowrl_core/envs` and a line in the table below. Other packages provide one as an
entry point of the group `flowrl.environments`, which has the environment's name and refers to an `Environment`.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowrl_core.errors import InputError
from flowrl_core.nearest import remedy_for
from flowrl_core.vocabulary.model import Vocabulary

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINTS", "ENVIRONMENTS", "Environment", "environment", "vocabulary"]

ENTRY_POINTS = "flowrl.environments"
"""The entry point group in which other packages provide environments."""

# By name, so that the command loads one entry in milliseconds, and no learner depends on another game's code.
_SHIPPED = {
    "craftax-classic": "flowrl_core.envs.craftax_classic:ENVIRONMENT",
    "corridor": "flowrl_core.envs.corridor:ENVIRONMENT",
}
ENVIRONMENTS = tuple(_SHIPPED)
"""The names of the environments that come with FlowRL."""


@dataclass(frozen=True)
class Environment:
    """A frozen catalogue entry. Objects that need JAX are named as `MODULE:NAME` and imported when used.

    Attributes:
        vocabulary: the names it provides to skills, and its rules in words.
        adapter: the function that creates its `envs.adapter.Adapter`. A compiled learner depends on the source of that
            module and of all modules of its package that it imports.
        packages: distributions whose versions determine its behaviour; a compiled learner depends on them.
        knowledge: the TOML file of its skills; None: a campaign must name one.
        transitions: the file of its recorded transitions; None: proposed programs cannot be run on any.
        scene: the `envs.scene.Scene` that records transitions.
    """

    vocabulary: Vocabulary
    adapter: str
    packages: tuple[str, ...] = ()
    knowledge: Path | None = None
    transitions: Path | None = None
    scene: str | None = None

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.vocabulary.env

    @property
    def traced(self) -> str:
        """The module whose code is traced into a compiled learner."""
        return self.adapter.partition(":")[0]


@functools.cache
def environment(name: str) -> Environment:
    """Return the environment of that name: a shipped one, or one from an installed package.

    Raises:
        InputError: there is none (the remedy suggests names), two packages provide it, or its entry is invalid.
    """
    if name in _SHIPPED:
        found: Environment = pkgutil.resolve_name(_SHIPPED[name])
        return found
    brought = _entry_points()
    candidates = [one for one in brought if one.name == name]
    if not candidates:
        known = [*_SHIPPED, *(one.name for one in brought)]
        raise InputError("env", f"there is no environment {name!r}", remedy_for(name, known, most=2, cutoff=0.3))
    if len(candidates) > 1:
        raise InputError("env", f"{name!r} is brought by {_packages(candidates)}", "Uninstall all but one of them")
    return _loaded(candidates[0])


def vocabulary(env: str) -> Vocabulary:
    """Return the vocabulary of an environment.

    Raises:
        InputError: as `environment`.
    """
    return environment(env).vocabulary


def _entry_points() -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=ENTRY_POINTS))


def _loaded(entry: EntryPoint) -> Environment:
    where = f"the entry point {entry.name} = {entry.value!r} of {_packages([entry])}"
    remedy = "Correct or uninstall that package"
    try:
        found = entry.load()
    except Exception as exc:  # third-party code may raise anything when imported
        raise InputError("env", f"{where} cannot be loaded: {type(exc).__name__}: {exc}", remedy) from exc
    if not isinstance(found, Environment):
        raise InputError("env", f"{where} is a {type(found).__name__}, not an Environment", remedy)
    if found.name != entry.name:
        raise InputError("env", f"{where} has a vocabulary of {found.name!r}", remedy)
    return found


def _packages(entries: Sequence[EntryPoint]) -> str:
    return " and ".join(sorted(one.dist.name if one.dist is not None else "an unknown package" for one in entries))
