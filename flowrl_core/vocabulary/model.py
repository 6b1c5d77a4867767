"""Fluents and vocabularies: the names that an environment provides to skills and programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Fluent", "FluentKind", "Vocabulary"]

FluentKind = Literal["count", "tier", "flag", "place", "level", "vital", "distance"]


@dataclass(frozen=True)
class Fluent:
    """A frozen record of a named quantity of the world's state: a kind and a closed range whose ends both occur."""

    name: str
    kind: FluentKind
    low: int
    high: int


@dataclass(frozen=True)
class Vocabulary:
    """A frozen record of the names that an environment provides to skills and programs.

    `fluents` are the base fluents in the order in which the adapter reads them. Programs may also read derived names:
    `gained.*` and `since.*` (of `inv.*`), `new_ach.*`, `d.*` (of vitals), `closer.*` (of `dist.*`) and `n`.
    """

    env: str
    fluents: tuple[Fluent, ...]
    actions: tuple[str, ...]
    targets: tuple[str, ...]
    """Kinds of block (or creature) that a skill may name as its target."""
    observation_size: int
    """Length of the environment's observation."""
    basic_actions: tuple[str, ...] = ()
    """Actions that an action mask always allows: moving, and what every skill may need."""
    shaping: str = ""
    """A reward program that every step of every plan earns besides its own while it is trained, at a weight that fades
    (`training.shaping`): what helps everywhere, such as hitting back. It never counts in an evaluation."""
    capacity: int = 9
    """Maximum amount of one item in the inventory."""
    most_gained: int = field(default=1, compare=False)
    """Maximum amount of one item gained in one environment step."""
    rules: tuple[str, ...] = field(default=(), compare=False)
    """The game's rules in words, for proposers of skills. They do not affect learning."""
