"""The planner: builds a short sequence of steps that ends with a skill, backwards from the skill's needs.

The planner tracks the needs (what must hold *before* the steps chosen so far) and prepends steps until nothing is
needed. It starts with the skill that no other open need depends on, so that raw material comes last: by then all its
consumers are known, and it is collected once, as one total. There are two exceptions to that order. A place (`near.*`)
must be reached before a step that would leave it is prepended. And if the total exceeds the capacity, part of it is
collected later in the plan.

Every plan is executed symbolically by `symbolic.execute` before it is returned.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from flowrl_core.errors import PlanError
from flowrl_core.programs.registers import COUNTS
from flowrl_core.skills import symbolic
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan, Step
from flowrl_core.skills.providers import choices
from flowrl_core.vocabulary.model import FluentKind

__all__ = ["make_plan", "plan_of"]

_MOST_STEPS = 200

_Needs = Mapping[str, int]
"""Fluent -> the required amount, if above 0."""


def make_plan(
    knowledge: Knowledge, target: str, *, n: int | None = None, learned: Collection[str] | None = None
) -> Plan:
    """Return the plan with the fewest steps, among those the planner finds, that ends with `n` of the target skill.

    Args:
        knowledge: the skills.
        target: the last step's skill.
        n: the last step's target count; by default the skill's `learn_count`.
        learned: skills that may be used besides the target; None: all.

    Raises:
        InputError: an unknown target; the remedy suggests the nearest names.
        PlanError: the target is unreachable; says why.
    """
    skill = knowledge.skill(target)
    count = skill.learn_count if n is None else n
    if count not in COUNTS:
        raise PlanError(f"plan of {target}", f"n is {count}", f"Use {COUNTS[0]} to {COUNTS[-1]}")
    plans: list[Plan] = []
    failures: list[PlanError] = []
    for providers in choices(knowledge, skill, learned):
        try:
            plan = Plan(target, _Builder(knowledge, target, providers).build(Step(target, count)))
            symbolic.execute(plan, knowledge)
            plans.append(plan)
        except PlanError as exc:
            failures.append(exc)
    if not plans:
        raise failures[0]
    return min(plans, key=lambda plan: (len(plan.steps), sum(step.n for step in plan.steps)))


def plan_of(knowledge: Knowledge, target: str) -> Plan:
    """Return the cached plan of the target with all skills usable; campaigns request the same plans every turn.

    Raises:
        InputError, PlanError: see `make_plan`.
    """
    return knowledge.plans.get(target) or knowledge.plans.setdefault(target, make_plan(knowledge, target))


class _TooMuchError(Exception):
    """A plan would need more of a count at once than the capacity."""

    def __init__(self, fluent: str) -> None:
        super().__init__(fluent)
        self.fluent = fluent


@dataclass(frozen=True)
class _Builder:
    """A builder of one plan with a fixed provider for each fluent."""

    knowledge: Knowledge
    target: str
    providers: Mapping[str, str]

    def build(self, last: Step) -> tuple[Step, ...]:
        """Return the steps up to and including the last one."""
        needed = self._before({}, last)
        try:
            self._without_places(needed)
        except _TooMuchError as exc:
            raise self._refused(f"{last.skill} needs more {exc.fluent} at once than the capacity allows") from exc
        steps = [last]
        while needed:
            if len(steps) == _MOST_STEPS:
                raise self._refused(f"it takes more than {_MOST_STEPS} steps")
            step = self._next(needed)
            needed = self._before(needed, step)
            steps.insert(0, step)
        return _collected_early(steps, self.knowledge)

    def _next(self, needed: _Needs) -> Step:
        """Return the step to prepend to the current ones."""
        open_skills = {self.providers[fluent] for fluent in needed}
        inner = set().union(*(self._cones[name] for name in open_skills))
        outer = sorted(open_skills - inner, key=lambda name: (-len(self._cones[name]), -self._rank[name]))
        if self._places(needed):
            for name in outer:
                if self._keeps(needed, name) and not self._brings_place(name):
                    step = self._sized(name, needed)
                    if self._overflow(needed, step) is None:
                        return step
            return self._place_step(needed)
        step = self._sized(outer[0], needed)
        # If it does not fit, it is collected in two parts; the later part is prepended first.
        while (fluent := self._overflow(needed, step)) is not None:
            step = self._sized(self.providers[fluent], {fluent: needed[fluent]})
        return step

    def _before(self, needed: _Needs, step: Step) -> dict[str, int]:
        """Return what must hold before the step so that `needed` holds after it."""
        skill = self.knowledge.skills[step.skill]
        return symbolic.needs_before(needed, skill, step.n, self.knowledge.fluents)

    def _overflow(self, needed: _Needs, step: Step) -> str | None:
        """Return a count that would exceed the capacity if the step were prepended; None if all fits."""
        try:
            self._without_places(self._before(needed, step))
        except _TooMuchError as exc:
            return exc.fluent
        return None

    def _without_places(self, needed: _Needs) -> _Needs:
        """Return the needs before the steps that reach the needed places, since no other step can come between."""
        while True:
            for fluent, amount in needed.items():
                if self._kind(fluent) == "count" and amount > self.knowledge.vocabulary.capacity:
                    raise _TooMuchError(fluent)
            if not self._places(needed):
                return needed
            needed = self._before(needed, self._place_step(needed))

    def _place_step(self, needed: _Needs) -> Step:
        """Return the step that reaches one of the needed places without leaving another one."""
        places = self._places(needed)
        for place in places:
            name = self.providers[place]
            if self._keeps(needed, name):
                return self._sized(name, {place: 1})
        raise self._refused(f"no skill reaches one of {' and '.join(places)} without leaving the other")

    def _sized(self, name: str, needed: _Needs) -> Step:
        """Return the step of the skill that covers the most needs within capacity, with the smallest such n."""
        wanted = {fluent: amount for fluent, amount in needed.items() if fluent in self.knowledge.skills[name].gain}
        best, most = None, 0
        for n in COUNTS:
            step = Step(name, n)
            brought = self._brought(wanted, step)
            if brought > most and self._overflow({}, step) is None:
                best, most = step, brought
            if brought == sum(wanted.values()):
                break
        if best is None:
            listed = ", ".join(f"{amount} of {fluent}" for fluent, amount in wanted.items())
            raise self._refused(f"{name} cannot gain {listed} within capacity")
        return best

    def _brought(self, wanted: _Needs, step: Step) -> int:
        """Return how much of `wanted` the step gains; a tier, flag or place counts in full or not at all."""
        total = 0
        for fluent, amount in wanted.items():
            gain = self.knowledge.skills[step.skill].gain[fluent].at(step.n)
            if self._kind(fluent) != "count":
                total += amount if gain >= amount else 0
            elif gain > self.knowledge.vocabulary.capacity:
                return 0
            else:
                total += min(gain, amount)
        return total

    def _kind(self, fluent: str) -> FluentKind:
        return self.knowledge.fluents[fluent].kind

    def _places(self, needed: _Needs) -> list[str]:
        return [fluent for fluent in needed if self._kind(fluent) == "place"]

    def _keeps(self, needed: _Needs, name: str) -> bool:
        skill = self.knowledge.skills[name]
        return all(place in skill.requirements or place in skill.gain for place in self._places(needed))

    def _brings_place(self, name: str) -> bool:
        return any(self._kind(fluent) == "place" for fluent in self.knowledge.skills[name].gain)

    def _refused(self, reason: str) -> PlanError:
        remedy = "Correct the amounts, or ask for a smaller n"
        return PlanError(f"plan of {self.target}", f"cannot, because {reason}", remedy)

    @cached_property
    def _rank(self) -> Mapping[str, int]:
        return {name: rank for rank, name in enumerate(self.knowledge.skills)}

    @cached_property
    def _cones(self) -> Mapping[str, frozenset[str]]:
        """The transitive prerequisites of each chosen provider."""
        graph = {
            name: {self.providers[fluent] for fluent in self.knowledge.needs(name)}
            for name in set(self.providers.values())
        }
        cones: dict[str, frozenset[str]] = {}
        for name in graphlib.TopologicalSorter(graph).static_order():
            cones[name] = frozenset(graph[name]).union(*(cones[other] for other in graph[name]))
        return cones


def _collected_early(steps: list[Step], knowledge: Knowledge) -> tuple[Step, ...]:
    """Return the plan with counts moved from later to earlier steps of the same skill, as far as possible."""
    for late in range(len(steps) - 1):
        for early in range(late):
            while steps[early].skill == steps[late].skill and steps[late].n > 1 and steps[early].n < COUNTS[-1]:
                moved = list(steps)
                moved[early] = Step(steps[early].skill, steps[early].n + 1)
                moved[late] = Step(steps[late].skill, steps[late].n - 1)
                try:
                    symbolic.execute(Plan(steps[-1].skill, tuple(moved)), knowledge)
                except PlanError:
                    break
                steps = moved
    return tuple(steps)
