"""Fluents and vocabularies: what an environment lets skills and programs speak of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Fluent", "FluentKind", "Vocabulary"]

FluentKind = Literal["count", "tier", "flag", "place", "level", "vital", "distance"]


@dataclass(frozen=True)
class Fluent:
    """A named quantity of the world's state with a kind and a closed range (both ends possible)."""

    name: str
    kind: FluentKind
    low: int
    high: int


@dataclass(frozen=True)
class Vocabulary:
    """What an environment lets skills speak of.

    `fluents` are the base fluents in the order in which the adapter reads them. A program may also name what is
    derived from
    them: `gained.*` and `since.*` (of `inv.*`), `new_ach.*`, `d.*` (of vitals), `closer.*` (of `dist.*`) and `n`.
    """

    env: str
    fluents: tuple[Fluent, ...]
    actions: tuple[str, ...]
    targets: tuple[str, ...]
    """Kinds of block (or creature) that a skill may name as its target."""
    observation_size: int
    """Length of the environment's own observation."""
    capacity: int = 9
    """The most of one item that the inventory holds."""
    most_gained: int = field(default=1, compare=False)
    """The most of one item that one step of the environment brings."""
    rules: tuple[str, ...] = field(default=(), compare=False)
    """The game's rules in words, for who proposes skills. Nothing that is learned depends on them."""
