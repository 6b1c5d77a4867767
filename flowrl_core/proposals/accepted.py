"""Growth: what accepted proposals add to a campaign's knowledge, and when more of them are wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from flowrl_core.errors import InputError
from flowrl_core.skills.frontier import Frontier, prerequisites
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Skill
from flowrl_core.skills.planner import plan_of
from flowrl_core.skills.skill_states import Fact
from flowrl_core.specs.skill import TrainingSpec

__all__ = ["budget", "grown", "is_wanting"]

_FRAMES = {"easy": 0.5, "medium": 1.0, "hard": 2.0}
"""Of the campaign's `training.frames`, by the difficulty that was expected."""


def grown(base: Knowledge, proposed: Mapping[str, Skill]) -> tuple[Knowledge, dict[str, str]]:
    """The knowledge with the accepted proposals on top, and why some of them do not count any more.

    A proposal was proven against what was known then; a skill that was revised since may have taken its plan away.

    Args:
        base: the knowledge base. A skill of the same name as a proposal gives way to it.
        proposed: the accepted proposals by name, in the order in which they were accepted.
    """
    stale: dict[str, str] = {}
    while True:
        mine = {name: skill for name, skill in proposed.items() if name not in stale}
        skills = {**base.skills, **mine}
        knowledge = dataclasses.replace(base, skills=skills, proposed=frozenset(mine))
        found = {name: problem for name in mine if (problem := _problem(knowledge, name))}
        if not found:
            return knowledge, stale
        stale |= found


def is_wanting(found: Frontier, facts: Mapping[str, Fact]) -> bool:
    """Whether a proposer is to be asked: a target cannot be reached as things are, and nothing waits to be trained.

    A skill that infrastructure has failed, or that somebody stopped, is no reason to think of another one.
    """
    if not found.open or found.ready or found.blocked:
        return False
    causes = {facts[name].cause for name in found.failed if name in facts}
    return not causes & {"infrastructure", "cancelled"}


def budget(difficulty: str, training: TrainingSpec) -> int:
    """The frames that a proposed skill may be trained for."""
    return max(1, round(_FRAMES[difficulty] * training.frames))


def _problem(knowledge: Knowledge, name: str) -> str:
    try:
        plan_of(knowledge, name)
        prerequisites(knowledge, [name])
    except InputError as exc:
        return exc.problem
    return ""
