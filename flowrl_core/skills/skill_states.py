"""The ledger: the state of a campaign's skills, derived from facts and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flowrl_core.skills.frontier import SkillState, frontier
from flowrl_core.skills.knowledge import Knowledge

__all__ = ["Cause", "Entry", "Fact", "SkillState", "Standing", "derive", "known_states"]

Cause = Literal["", "verdict", "infrastructure", "cancelled", "rejected"]

Standing = Literal[SkillState, "stopped"]
"""A skill's state as displayed. A stopped skill has not failed: the next start resumes it."""


@dataclass(frozen=True)
class Fact:
    """A frozen record of what the registry holds on one skill.

    Attributes:
        learned: a bundle of this definition has passed its looks.
        failed: the last run ended without one, for the given `cause`.
        cause: `verdict`: it did not learn; `infrastructure`: no retries are left; `cancelled`: a person stopped it;
            `rejected`: a person refused its training.
        executing: an attempt is outstanding.
    """

    learned: bool = False
    failed: bool = False
    cause: Cause = ""
    executing: bool = False

    @property
    def is_lasting(self) -> bool:
        """Whether it has failed until a start names it in `retry`; each start lifts other failures."""
        return self.cause in ("verdict", "rejected")


@dataclass(frozen=True)
class Entry:
    """A frozen row of the ledger as displayed.

    Attributes:
        name: the skill.
        state: its current state.
        expert: global index, once allocated.
        routed_frames: cumulative frames of the expert's head, or of its last run if it has no head.
        success: end-to-end rate of the last look, in [0, 1].
        success_lower_bound: its corrected lower bound.
        episodes: of the last look.
        looks: taken in the last run.
        threshold: the lower bound required for learned.
        bundle: name of the bundle of expert versions it was measured with, once learned.
        cause: why it failed; empty otherwise.
    """

    name: str
    state: Standing
    expert: int | None = None
    routed_frames: int = 0
    success: float | None = None
    success_lower_bound: float | None = None
    episodes: int = 0
    looks: int = 0
    threshold: float | None = None
    bundle: str | None = None
    cause: Cause = ""


def derive(knowledge: Knowledge, targets: Iterable[str], facts: Mapping[str, Fact]) -> dict[str, Standing]:
    """Return the state of every skill that a target needs, prerequisites first.

    A learned skill stays learned; an outstanding attempt outweighs an earlier failure. Skills that wait for a stopped
    skill are not blocked by a failure.

    Args:
        knowledge: the skills.
        targets: the campaign's targets, skills or goals.
        facts: by skill; a skill without facts is untried.
    """
    known = known_states(facts)
    stopped = {name for name, state in known.items() if state == "failed" and facts[name].cause == "cancelled"}
    left = {name: state for name, state in known.items() if name not in stopped}
    states = frontier(knowledge, targets, left).states
    return {name: "stopped" if name in stopped else state for name, state in states.items()}


def known_states(facts: Mapping[str, Fact]) -> dict[str, SkillState]:
    """Return the states that follow from facts alone (learned, submitted, failed); the frontier derives the others."""
    return {name: state for name, fact in facts.items() if (state := _state(fact)) is not None}


def _state(fact: Fact) -> SkillState | None:
    if fact.learned:
        return "learned"
    if fact.executing:
        return "submitted"
    return "failed" if fact.failed else None
