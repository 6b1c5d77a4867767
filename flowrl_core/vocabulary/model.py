"""Fluents and vocabularies: the names that an environment provides to skills and programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Fluent", "FluentKind", "Vocabulary"]

FluentKind = Literal["count", "total", "tier", "flag", "place", "level", "vital", "distance"]
"""A total counts what has happened in an episode: it begins at its minimum and never falls."""


@dataclass(frozen=True)
class Fluent:
    """A frozen record of a named quantity of the world's state: a kind and a closed range whose ends both occur.

    Attributes:
        is_hidden: whether it tells what the player cannot see, such as a creature's health. Rewards alone may read it:
            no done condition, and no effect of a skill.
        most_gained: the maximum by which a count or total rises in one environment step; None: anything in its range.
    """

    name: str
    kind: FluentKind
    low: int
    high: int
    is_hidden: bool = False
    most_gained: int | None = None


@dataclass(frozen=True)
class Vocabulary:
    """A frozen record of the names that an environment provides to skills and programs.

    `fluents` are the base fluents in the order in which the adapter reads them. Programs may also read derived names:
    `gained.*` and `since.*` (of `inv.*`, counts and totals), `new_ach.*`, `d.*` (of vitals), `closer.*` (of `dist.*`)
    and `n`. The total `dealt.X` is the damage dealt to the target X, the only one that a proposed reward may pay for.
    """

    env: str
    fluents: tuple[Fluent, ...]
    actions: tuple[str, ...]
    targets: tuple[str, ...]
    """Kinds of block (or creature) that a skill may name as its target."""
    groups: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), kw_only=True)
    """Targets that stand for several kinds, such as ("enemy", ("zombie", "skeleton")): the nearest of any of them."""
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
    """Maximum by which a count rises in one environment step, unless its fluent says so itself."""
    rules: tuple[str, ...] = field(default=(), compare=False)
    """The game's rules in words, for proposers of skills. They do not affect learning."""

    def kinds(self, target: str) -> tuple[str, ...]:
        """Return the kinds of block or creature that a target stands for."""
        return dict(self.groups).get(target, (target,))
