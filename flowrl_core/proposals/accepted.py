"""Growth: the skills that accepted proposals add to a campaign's knowledge, and when to ask for more."""

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
"""Factors of the campaign's `training.frames`, by expected difficulty."""


def grown(base: Knowledge, proposed: Mapping[str, Skill]) -> tuple[Knowledge, dict[str, str]]:
    """Return the knowledge extended by the accepted proposals, and stale proposals with the reason.

    A proposal was checked against the knowledge of its time; a later revision of another skill may break its plan.

    Args:
        base: the knowledge base. A proposal replaces its skill of the same name.
        proposed: the accepted proposals by name, in order of acceptance.
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
    """Whether to ask for proposals: a target is currently unreachable, and no skill is ready or blocked.

    Skills that failed for infrastructure reasons or were stopped by a person need no replacement.
    """
    if not found.open or found.ready or found.blocked:
        return False
    causes = {facts[name].cause for name in found.failed if name in facts}
    return not causes & {"infrastructure", "cancelled"}


def budget(difficulty: str, training: TrainingSpec) -> int:
    """Return the frame budget of a proposed skill."""
    return max(1, round(_FRAMES[difficulty] * training.frames))


def _problem(knowledge: Knowledge, name: str) -> str:
    try:
        plan_of(knowledge, name)
        prerequisites(knowledge, [name])
    except InputError as exc:
        return exc.problem
    return ""
