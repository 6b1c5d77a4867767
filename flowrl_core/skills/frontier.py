"""The frontier: which skills can be trained now, which are blocked, and by what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from flowrl_core.skills.goals import reached_by
from flowrl_core.skills.knowledge import Knowledge, in_order
from flowrl_core.skills.planner import plan_of

__all__ = ["Frontier", "SkillState", "frontier", "needed", "prerequisites"]

SkillState = Literal["learned", "failed", "ready", "blocked", "blocked_by_failed", "submitted"]


@dataclass(frozen=True)
class Frontier:
    """A frozen record of the skills that a campaign's targets need, grouped by state; each is in exactly one group.

    Attributes:
        ready: can be submitted, the longest chain of dependants first.
        blocked: wait for a skill that is not learned yet, or for a helper of theirs that may still be learned.
        done: learned.
        blocked_by_failed: depend, directly or not, on a skill that failed.
        failed: did not learn.
        submitted: in progress.
        needed: all of the above, prerequisites first.
        by: target -> the skill chosen to reach it; None if no skill gains it.
    """

    ready: tuple[str, ...]
    blocked: tuple[str, ...]
    done: tuple[str, ...]
    blocked_by_failed: tuple[str, ...]
    failed: tuple[str, ...]
    submitted: tuple[str, ...]
    needed: tuple[str, ...]
    by: Mapping[str, str | None]

    @cached_property
    def states(self) -> dict[str, SkillState]:
        """The state of each needed skill, prerequisites first."""
        groups: dict[SkillState, tuple[str, ...]] = {
            "ready": self.ready,
            "blocked": self.blocked,
            "learned": self.done,
            "blocked_by_failed": self.blocked_by_failed,
            "failed": self.failed,
            "submitted": self.submitted,
        }
        state_of = {name: state for state, names in groups.items() for name in names}
        return {name: state_of[name] for name in self.needed}

    @cached_property
    def open(self) -> tuple[str, ...]:
        """The targets that are currently unreachable: no skill gains them, or a skill that they need has failed."""
        barred = {*self.failed, *self.blocked_by_failed, None}
        return tuple(target for target, name in self.by.items() if name in barred)


def prerequisites(knowledge: Knowledge, targets: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return every skill that a target needs, in topological order, with its prerequisites: the rest of its plan.

    Raises:
        PlanError: a target, or a skill that it needs, has no plan.
        KnowledgeError: cyclic prerequisites; the message names the cycle.
    """
    graph: dict[str, tuple[str, ...]] = {}
    todo = sorted(set(targets), reverse=True)
    while todo:
        name = todo.pop()
        if name not in graph:
            graph[name] = tuple(other for other in plan_of(knowledge, name).skills if other != name)
            todo.extend(reversed(graph[name]))
    return {name: graph[name] for name in in_order(graph, source=knowledge.source)}


def needed(knowledge: Knowledge, targets: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return `prerequisites` of the targets and of all their helpers, which come before the skills that they help.

    A helper is no prerequisite: a skill whose helper cannot be learned is trained without it.

    Raises:
        PlanError, KnowledgeError: as `prerequisites`.
    """
    needs = prerequisites(knowledge, targets)
    while more := {helper for name in needs for helper in knowledge.skills[name].helpers} - needs.keys():
        needs = prerequisites(knowledge, [*needs, *more])
    graph = {name: (*before, *knowledge.skills[name].helpers) for name, before in needs.items()}
    return {name: needs[name] for name in in_order(graph, source=knowledge.source)}


def frontier(knowledge: Knowledge, targets: Iterable[str], states: Mapping[str, SkillState]) -> Frontier:
    """Return the current frontier of the targets.

    While a target is unreachable, the proposed skills count as needed too, as steps towards it.

    Args:
        knowledge: the skills.
        targets: skills to learn, or fluents to gain.
        states: known states by skill. Only `learned`, `failed` and `submitted` are used; the others are derived.

    Raises:
        InputError: an unknown target, one without a plan, or cyclic knowledge.
    """
    failed = [name for name, state in states.items() if state == "failed"]
    learned = [name for name, state in states.items() if state == "learned"]
    by = reached_by(knowledge, targets, failed, learned)
    roots = [name for name in by.values() if name is not None]
    aimed = _arranged(knowledge, roots, by, states)
    if not aimed.open or not knowledge.proposed:
        return aimed
    return _arranged(knowledge, [*roots, *sorted(knowledge.proposed)], by, states)


def _arranged(
    knowledge: Knowledge, roots: Iterable[str], by: Mapping[str, str | None], states: Mapping[str, SkillState]
) -> Frontier:
    needs = needed(knowledge, roots)
    found: dict[str, SkillState] = {}
    for name, before in needs.items():
        helpers = {found[helper] for helper in knowledge.skills[name].helpers}
        found[name] = _state(states.get(name), {found[other] for other in before}, helpers)
    chain = _dependants_chain({name: (*before, *knowledge.skills[name].helpers) for name, before in needs.items()})

    def those(state: SkillState) -> tuple[str, ...]:
        return tuple(name for name in needs if found[name] == state)

    return Frontier(
        ready=tuple(sorted(those("ready"), key=lambda name: -chain[name])),
        blocked=those("blocked"),
        done=those("learned"),
        blocked_by_failed=those("blocked_by_failed"),
        failed=those("failed"),
        submitted=those("submitted"),
        needed=tuple(needs),
        by=by,
    )


def _state(known: SkillState | None, before: set[SkillState], helpers: set[SkillState]) -> SkillState:
    if known in ("learned", "failed", "submitted"):
        return known
    if before & {"failed", "blocked_by_failed"}:
        return "blocked_by_failed"
    return "ready" if before <= {"learned"} and helpers <= {"learned", "failed", "blocked_by_failed"} else "blocked"


def _dependants_chain(needs: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return the length of the longest chain of dependants of each skill: the critical path starts at the maximum."""
    chain = dict.fromkeys(needs, 0)
    for name in reversed(list(needs)):
        for other in needs[name]:
            chain[other] = max(chain[other], chain[name] + 1)
    return chain
