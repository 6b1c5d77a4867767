"""The gates: which of the skills that were proposed are trained.

Nothing of a proposal is trusted. It passes the gates in this order, and the first that refuses it ends its examination:

    name         a legal name that nothing else has
    effects      known fluents, in parts, kinds and amounts that can be
    new          gains what nothing gains yet, or revises what failed
    reachable    its needs are gained by skills that have not failed, and do not go in a circle
    plan         a proven plan, short enough
    program      proven expressions; done reads what is gained
    transitions  run on recorded and on synthetic transitions they do what they should

Small mistakes are repaired, each with a note. Every refusal has a code and says what to do.
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
"""What another proposal of the same batch may put right."""


def examine(proposals: Sequence[Proposal], context: GateContext) -> list[Examination]:
    """What the gates say of each proposal, in the order given.

    Proposals may build on each other in any order: one that is sound counts as there for the others, and those that
    lack something are looked at again. Of two that gain the same, the first that is sound is taken.

    Args:
        proposals: of one batch.
        context: what they are judged by.
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
    """Whether one of the new skills gains something that the skill needs, at any depth."""
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
