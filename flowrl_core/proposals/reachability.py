"""The gates that check a definition against the other skills: novelty, reachable needs, and a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowrl_core.errors import PlanError
from flowrl_core.proposals.gate_context import GateContext, effects_key, mended, refused
from flowrl_core.proposals.gate_definition import cooled
from flowrl_core.proposals.model import DIFFICULTIES, Examination, Finding
from flowrl_core.skills.knowledge import needs_of
from flowrl_core.skills.model import Skill
from flowrl_core.skills.planner import make_plan
from flowrl_core.text import counted

__all__ = ["look_at_needs", "look_at_novelty", "look_at_plan", "name_circles"]

# Maximum number of proposals followed per fluent in the search for a cycle.
_MOST_PEERS = 8


def look_at_novelty(examination: Examination, context: GateContext) -> Examination:
    """The gate `new`: gains a fluent that no skill gains yet, or revises a failed skill.

    Codes: `exists`, `duplicate`, `nothing_new`, `unchanged`, `too_many_revisions`, `drops_gain`, `cooling_down`.
    Repair: `revision_of` (renamed to the failed skill with the same gain).
    """
    skill = examination.repaired.skill
    if skill.name in context.usable:
        sentence = f"there is a skill {skill.name} already, and it has not failed. Propose another one"
        return refused(examination, Finding("new", "exists", sentence))
    key = effects_key(skill)
    if skill.name not in context.failures:
        examination = _as_revision(examination, context)
        skill = examination.repaired.skill
    if (examination := cooled(examination, context, "new")).refusals:
        return examination
    if (finding := _revision(examination, context) or _repetition(skill, key, context)) is not None:
        return refused(examination, finding)
    return examination


def look_at_needs(examination: Examination, context: GateContext) -> Examination:
    """The gate `reachable`: for every need there is another skill that gains it and has not failed, without a cycle.

    Codes: `self_requiring`, `needs_failed`, `unprovided`, `cycle`.
    """
    skill = examination.repaired.skill
    found = []
    for fluent in needs_of(skill):
        if fluent in skill.gain:
            sentence = f"it needs {fluent}, which it gains itself. Require what another skill gains"
            found.append(Finding("reachable", "self_requiring", sentence))
        elif not context.gainers(fluent, besides=skill.name):
            failed = [name for name in context.knowledge.providers(fluent) if name != skill.name]
            if failed:
                sentence = (
                    f"it needs {fluent}, and {' and '.join(failed)}, which gains it, has failed. Propose it again"
                )
                found.append(Finding("reachable", "needs_failed", sentence))
            else:
                sentence = f"it needs {fluent}, which no skill gains. Propose a skill that gains it, in the same answer"
                found.append(Finding("reachable", "unprovided", sentence))
    if not found and (circle := _circle(skill, context)):
        found.append(_cyclic(circle))
    return refused(examination, *found) if found else examination


def look_at_plan(examination: Examination, context: GateContext) -> Examination:
    """The gate `plan`: a symbolically executed plan that fits into the automaton.

    Codes: `no_plan`, `too_long`.
    """
    skill = examination.repaired.skill
    try:
        plan = make_plan(context.knowledge_with(skill), skill.name, learned=context.usable)
    except PlanError as exc:
        return refused(examination, Finding("plan", "no_plan", f"there is no plan: {exc.problem}. {exc.remedy}"))
    if len(plan.steps) > context.max_steps:
        sentence = f"its plan takes {len(plan.steps)} steps, more than the maximum of {context.max_steps}. Require less"
        return refused(examination, Finding("plan", "too_long", sentence))
    waits_for = tuple(name for name in plan.skills if name != skill.name and context.states.get(name) != "learned")
    return replace(examination, plan=plan, waits_for=waits_for)


def name_circles(found: Sequence[Examination], context: GateContext) -> list[Examination]:
    """Return the examinations of one batch, naming the cycle where refused proposals need each other."""
    peers: dict[str, list[Skill]] = {}
    for one in found:
        if one.refusals and one.refusals[0].gate == "reachable":
            for fluent in one.repaired.skill.gain:
                if len(gainers := peers.setdefault(fluent, [])) < _MOST_PEERS:
                    gainers.append(one.repaired.skill)
    return [_with_peers(one, peers, context) for one in found]


def _as_revision(examination: Examination, context: GateContext) -> Examination:
    skill = examination.repaired.skill
    for name, past in context.failures.items():
        if set(past[-1].skill.gain) == set(skill.gain):
            sentence = f"{skill.name} gains what {name} gains, which failed: it is treated as a revision of that skill"
            return mended(examination, Finding("new", "revision_of", sentence), name=name)
    return examination


def _revision(examination: Examination, context: GateContext) -> Finding | None:
    """Return the problem with a revision of a failed skill; None if there is none, or it is not a revision."""
    skill, env = examination.repaired.skill, context.knowledge.env
    past = context.failures.get(skill.name, ())
    if not past:
        return None
    same = [DIFFICULTIES.index(p.difficulty) for p in past if p.skill.identity(env) == skill.identity(env)]
    if same and DIFFICULTIES.index(examination.repaired.difficulty) <= max(same):
        sentence = (
            f"{skill.name} failed with this same definition. Change it, or give it a higher difficulty than before"
        )
        return Finding("new", "unchanged", sentence)
    if len(past) > context.max_revisions:
        sentence = f"{skill.name} failed {counted(len(past), 'time')}, and has no tries left. Propose something else"
        return Finding("new", "too_many_revisions", sentence)
    for fluent in past[-1].skill.gain:
        needy = [
            name for name in context.knowledge.skills if fluent in context.knowledge.needs(name) and name != skill.name
        ]
        if needy and fluent not in skill.gain and not context.gainers(fluent, besides=skill.name):
            sentence = f"{skill.name} must still gain {fluent}, since {needy[0]} needs it"
            return Finding("new", "drops_gain", sentence)
    return None


def _repetition(skill: Skill, key: str, context: GateContext) -> Finding | None:
    if (other := context.effects.get(key)) is not None:
        sentence = f"it has the same gain, requirements and consumption as {other}. Propose something else"
        return Finding("new", "duplicate", sentence)
    gainers = {fluent: context.gainers(fluent, besides=skill.name) for fluent in skill.gain}
    if all(gainers.values()):
        known = ", ".join(f"{fluent} by {names[0]}" for fluent, names in gainers.items())
        return Finding("new", "nothing_new", f"everything it gains is already gained: {known}. Gain something else")
    return None


def _circle(skill: Skill, context: GateContext) -> list[str]:
    """Return the names along a cycle of needs from the skill back to itself; empty if there is none.

    The planner requires that no choice of providers makes a cycle, so failed skills count too.
    """
    paths = [(fluent, [skill.name]) for fluent in needs_of(skill)]
    seen: set[str] = set()
    while paths:
        fluent, path = paths.pop()
        if fluent in skill.gain:
            return [*path, skill.name]
        for name in context.knowledge.providers(fluent):
            if name not in seen and name != skill.name:
                seen.add(name)
                paths.extend((need, [*path, name]) for need in context.knowledge.needs(name))
    return []


def _with_peers(one: Examination, peers: Mapping[str, Sequence[Skill]], context: GateContext) -> Examination:
    if not one.refusals or one.refusals[0].code != "unprovided":
        return one
    skill = one.repaired.skill
    paths = [(skill, [skill.name])]
    seen = {skill.name}
    while paths:
        last, path = paths.pop()
        for fluent in needs_of(last):
            if context.gainers(fluent, besides=last.name):
                continue
            for peer in peers.get(fluent, ()):
                if peer.name == skill.name and len(path) > 1:
                    return replace(one, refusals=(_cyclic([*path, skill.name]),))
                if peer.name not in seen:
                    seen.add(peer.name)
                    paths.append((peer, [*path, peer.name]))
    return one


def _cyclic(circle: Sequence[str]) -> Finding:
    return Finding("reachable", "cycle", f"{' needs '.join(circle)}. Remove one of these requirements")
