"""Symbolic execution of plans: an independent check of the planner.

Counts, tiers and flags start at 0 and no place is near. A step needs its requirements and its consumption. Then the
consumption is subtracted, counts grow by the gain, tiers become the larger of old and new, flags and places become
true. A place is lost unless the step's skill gains it or lists it in its requirements (amount 0: kept, not needed).

Backwards through a plan, the same rules say what each step must leave for the steps after it (`kept`).
"""

from __future__ import annotations

from collections.abc import Mapping

from flowrl_core.errors import PlanError
from flowrl_core.programs.registers import COUNTS
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.vocabulary.model import Fluent

__all__ = ["execute", "kept", "needs_before"]


def needs_before(needed: Mapping[str, int], skill: Skill, n: int, fluents: Mapping[str, Fluent]) -> dict[str, int]:
    """Return the amounts that must hold before a step so that `needed` holds after it; zeros are left out."""
    before: dict[str, int] = {}
    for name, amount in needed.items():
        gain = skill.gain[name].at(n) if name in skill.gain else 0
        if fluents[name].kind == "count":
            before[name] = max(amount - gain, 0)
        else:
            before[name] = 0 if gain >= amount else amount
    for name, linear in skill.consumption.items():
        before[name] = before.get(name, 0) + linear.at(n)
    for name, linear in skill.requirements.items():
        before[name] = max(before.get(name, 0), linear.at(n))
    return {name: amount for name, amount in before.items() if amount}


def kept(plan: Plan, skills: Mapping[str, Skill], fluents: Mapping[str, Fluent]) -> tuple[Mapping[str, int], ...]:
    """Return what must hold after each step for the later ones: the least amount of each fluent, by step.

    A furnace, say, must be placed where the table is still near if the next step needs both.
    """
    needed: dict[str, int] = {}
    left: list[Mapping[str, int]] = []
    for step in reversed(plan.steps):
        left.append(needed)
        needed = needs_before(needed, skills[step.skill], step.n, fluents)
    return tuple(reversed(left))


def execute(plan: Plan, knowledge: Knowledge) -> dict[str, int]:
    """Return the nonzero fluents after the plan.

    Raises:
        PlanError: the first impossible step, and why; or a plan that does not end with its target.
    """
    state: dict[str, int] = {}
    for number, step in enumerate(plan.steps, 1):
        where = f"plan of {plan.target}, step {number}"
        if step.skill not in knowledge.skills:
            raise PlanError(where, f"there is no skill {step.skill}", f"Plan again with {knowledge.source}")
        if step.n not in COUNTS:
            raise PlanError(where, f"{step.skill} has n = {step.n}", f"Use {COUNTS[0]} to {COUNTS[-1]}")
        state = _step(state, knowledge.skills[step.skill], step.n, knowledge, where)
    if not plan.steps or plan.steps[-1].skill != plan.target:
        raise PlanError(f"plan of {plan.target}", "does not end with its target", "Plan again")
    return state


def _step(state: dict[str, int], skill: Skill, n: int, knowledge: Knowledge, where: str) -> dict[str, int]:
    for part in (skill.requirements, skill.consumption):
        for name, amount in part.items():
            have, need = state.get(name, 0), amount.at(n)
            if have < need:
                problem = f"{skill.name} needs {need} of {name}, but has {have}"
                raise PlanError(where, problem, "Add a step that provides it")
    after = {
        name: value
        for name, value in state.items()
        if knowledge.fluents[name].kind != "place" or name in skill.requirements
    }
    for name, amount in skill.consumption.items():
        after[name] = after.get(name, 0) - amount.at(n)
    for name, amount in skill.gain.items():
        after[name] = _gained(knowledge.fluents[name], after.get(name, 0), amount.at(n))
        fluent = knowledge.fluents[name]
        most = min(fluent.high, knowledge.vocabulary.capacity) if fluent.kind == "count" else fluent.high
        if after[name] > most:
            problem = f"{skill.name} would raise {name} to {after[name]}, above the capacity of {most}"
            raise PlanError(where, problem, "Split or shorten the step")
    return {name: value for name, value in after.items() if value}


def _gained(fluent: Fluent, old: int, gain: int) -> int:
    if fluent.kind == "count":
        return old + gain
    return max(old, gain) if fluent.kind == "tier" else 1
