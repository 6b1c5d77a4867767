"""Goals: targets that name a fluent to gain, such as `inv.iron_pickaxe`, instead of a skill."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from flowrl_core.errors import InputError, PlanError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.nearest import nearest, remedy_for, several
from flowrl_core.refusals import shown
from flowrl_core.skills.constraints import kind_rule
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.planner import plan_of
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["check_provided", "check_target", "is_goal", "is_reached", "provider_of", "reached_by"]


def is_goal(target: str) -> bool:
    """Whether a target names a fluent; skill names contain no dots."""
    return "." in target


def check_target(target: str, skills: Collection[str], vocabulary: Vocabulary) -> None:
    """Check that the target is a known skill, or a fluent that skills can gain.

    Raises:
        InputError: it is neither; the remedy suggests the nearest names.
    """
    goals = [fluent.name for fluent in vocabulary.fluents if kind_rule("gain", fluent) is None]
    if target in (goals if is_goal(target) else skills):
        return
    if names := several(target, {*skills, *goals}):
        raise InputError("targets", f"{shown(target)} is a list", f"Name each target separately: {' and '.join(names)}")
    if is_goal(target):
        remedy = remedy_for(target, goals, cutoff=0.4)
        raise InputError("targets", f"{shown(target)} is not a fluent that a skill can gain", remedy)
    brought = nearest(f"inv.{target.partition('_')[2] or target}", goals, most=2, cutoff=0.6)
    goal = f"Or name a fluent to obtain, such as {(brought or goals)[0]}"
    raise InputError("targets", f"there is no skill {shown(target)}", f"{remedy_for(target, skills)} {goal}")


def check_provided(knowledge: Knowledge, targets: Iterable[str], named: Naming = AS_PATHS) -> None:
    """Check that some skill gains each target that is a goal.

    Args:
        named: how the user writes a field, given its path (`frontier.kind`).

    Raises:
        InputError: no skill gains one of them.
    """
    for target in targets:
        if is_goal(target) and not knowledge.providers(target):
            remedy = (
                f"Name another one, or let a language model propose skills: {named.setting('frontier.kind', 'hybrid')}"
            )
            raise InputError("targets", f"no skill of {knowledge.source} gains {target}", remedy)


def provider_of(knowledge: Knowledge, goal: str, failed: Collection[str], learned: Collection[str]) -> str | None:
    """Return the best skill for a goal: a learned one, else one whose plan has no failed skill, else any.

    Ties go to the shortest plan. None if no skill with a plan gains it.
    """
    ranked: list[tuple[bool, bool, int, str]] = []
    for name in knowledge.providers(goal):
        try:
            plan = plan_of(knowledge, name)
        except PlanError:
            continue
        ranked.append((name not in learned, not set(plan.skills).isdisjoint(failed), len(plan.steps), name))
    return min(ranked)[-1] if ranked else None


def is_reached(knowledge: Knowledge, target: str, learned: Collection[str]) -> bool:
    """Whether the target skill, or a skill that gains the target fluent, is learned."""
    return not set(knowledge.providers(target) if is_goal(target) else (target,)).isdisjoint(learned)


def reached_by(
    knowledge: Knowledge, targets: Iterable[str], failed: Collection[str], learned: Collection[str]
) -> Mapping[str, str | None]:
    """Return target -> the skill chosen to reach it; see `provider_of`."""
    return {
        target: provider_of(knowledge, target, failed, learned) if is_goal(target) else target for target in targets
    }
