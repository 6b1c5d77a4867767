"""The gates: the checks that decide which proposed skills are trained.

Proposals are untrusted. They pass the gates in this order, and the first refusal ends the examination:

    name         a legal, unused name
    effects      known fluents, allowed kinds and amounts
    new          gains a fluent that no skill gains yet, or revises a failed skill
    reachable    skills that have not failed gain its needs, without a cycle
    plan         a verified plan, short enough
    program      proven expressions; done reads part of the gain
    transitions  the programs behave correctly on recorded and synthetic transitions

Small mistakes are repaired, each with a note. Every refusal has a code and a remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flowrl_core.proposals.gate_context import GateContext
from flowrl_core.proposals.gate_definition import look_at_effects, look_at_name
from flowrl_core.proposals.gate_programs import look_at_programs, look_at_transitions
from flowrl_core.proposals.model import Examination, Proposal
from flowrl_core.proposals.reachability import look_at_needs, look_at_novelty, look_at_plan, name_circles
from flowrl_core.skills.knowledge import Knowledge, needs_of
from flowrl_core.skills.model import Skill

__all__ = ["GateContext", "examine"]

_GATES: tuple[Callable[[Examination, GateContext], Examination], ...] = (
    look_at_name, look_at_effects, look_at_novelty, look_at_needs, look_at_plan, look_at_programs, look_at_transitions,
)  # fmt: skip

_MAY_CHANGE = frozenset({"needs_failed", "unprovided", "no_plan", "too_long"})
"""Refusals that another proposal of the same batch may resolve."""


def examine(proposals: Sequence[Proposal], context: GateContext) -> list[Examination]:
    """Return the examination of each proposal, in the given order.

    Proposals may build on each other in any order: a sound one counts as an existing skill for the others, and those
    that lack a prerequisite are examined again. Of two with the same effects, the first sound one is accepted.

    Args:
        proposals: one batch.
        context: the data that they are checked against.
    """
    found: dict[int, Examination] = {}
    looked: dict[int, int] = {}
    taken: list[Skill] = []
    waiting = list(range(len(proposals)))
    while waiting:
        before = len(taken)
        for i in waiting:
            if i in found and not _concerns(taken[looked[i] :], found[i].repaired.skill, context.knowledge):
                continue
            looked[i] = len(taken)
            found[i] = _look(proposals[i], context)
            if found[i].is_sound:
                taken.append(found[i].repaired.skill)
                context = context.with_skill(found[i].repaired.skill)
        waiting = [i for i in waiting if any(finding.code in _MAY_CHANGE for finding in found[i].refusals)]
        if len(taken) == before:
            break
    return name_circles([found[i] for i in range(len(proposals))], context)


def _look(proposal: Proposal, context: GateContext) -> Examination:
    examination = Examination(proposal, proposal)
    for gate in _GATES:
        examination = gate(examination, context)
        if examination.refusals:
            break
    return examination


def _concerns(new: Iterable[Skill], skill: Skill, knowledge: Knowledge) -> bool:
    """Whether one of the new skills gains a fluent that the skill needs, at any depth."""
    gained = {fluent for one in new for fluent in one.gain}
    todo = list(needs_of(skill)) if gained else []
    seen = set(todo)
    while todo:
        fluent = todo.pop()
        if fluent in gained:
            return True
        for name in knowledge.providers(fluent):
            fresh = set(knowledge.needs(name)) - seen
            seen |= fresh
            todo.extend(fresh)
    return False
