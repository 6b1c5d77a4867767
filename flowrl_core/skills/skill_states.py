"""The ledger: what a campaign knows of its skills, derived from facts and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flowrl_core.skills.frontier import SkillState, frontier
from flowrl_core.skills.knowledge import Knowledge

__all__ = ["Cause", "Entry", "Fact", "SkillState", "Standing", "derive", "known_states"]

Cause = Literal["", "verdict", "infrastructure", "cancelled", "rejected"]

Standing = Literal[SkillState, "stopped"]
"""Where a skill stands, for people. One that was stopped has not failed: the next start goes on with it."""


@dataclass(frozen=True)
class Fact:
    """What the registry holds on one skill.

    Attributes:
        learned: a bundle of this definition has passed its looks.
        failed: the last run ended without, for the `cause` given.
        cause: `verdict`: it did not learn; `infrastructure`: no retry is left; `cancelled`: somebody stopped it;
            `rejected`: somebody refused to have it trained.
        executing: an attempt is outstanding.
    """

    learned: bool = False
    failed: bool = False
    cause: Cause = ""
    executing: bool = False


@dataclass(frozen=True)
class Entry:
    """One row of the ledger as it is shown.

    Attributes:
        name: the skill.
        state: where it stands.
        expert: global index, once one is allocated.
        routed_frames: cumulative frames of the expert's head, or of its last run where it has none.
        success: end-to-end rate of the last look, in [0, 1].
        success_lower_bound: its corrected lower bound.
        episodes: of the last look.
        looks: taken in the last run.
        threshold: the bound that the skill must reach.
        bundle: the name of the versions it was measured with, once learned.
        cause: why it failed; empty if it did not.
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
    """Where every skill that a target needs stands, prerequisites first.

    What was learned stays learned; an outstanding attempt outweighs an earlier failure. What waits for a skill that was
    stopped is blocked by no failure.

    Args:
        knowledge: the skills.
        targets: the campaign's targets, skills or goals.
        facts: by skill; a skill without one is as good as new.
    """
    known = known_states(facts)
    stopped = {name for name, state in known.items() if state == "failed" and facts[name].cause == "cancelled"}
    left = {name: state for name, state in known.items() if name not in stopped}
    states = frontier(knowledge, targets, left).states
    return {name: "stopped" if name in stopped else state for name, state in states.items()}


def known_states(facts: Mapping[str, Fact]) -> dict[str, SkillState]:
    """The states that facts tell: learned, submitted or failed. What is not there is found by the frontier."""
    return {name: state for name, fact in facts.items() if (state := _state(fact)) is not None}


def _state(fact: Fact) -> SkillState | None:
    if fact.learned:
        return "learned"
    if fact.executing:
        return "submitted"
    return "failed" if fact.failed else None
