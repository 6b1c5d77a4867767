"""The gates that check a definition by itself: its name and its effects."""

from __future__ import annotations

import re

from flowrl_core.proposals.gate_context import GateContext, mended, refused
from flowrl_core.proposals.model import Examination, Finding, Gate
from flowrl_core.skills.constraints import (
    PARTS,
    Broken,
    amount_rule,
    ephemeral_rule,
    gain_rule,
    kind_rule,
    known_rule,
    learn_count_rule,
    name_rule,
)
from flowrl_core.skills.model import Skill
from flowrl_core.text import folded, quoted

__all__ = ["cooled", "look_at_effects", "look_at_name"]

_LONGEST_DESCRIPTION = 500
_MOST_FINDINGS = 8
# A few words with separators are a carelessly written name; anything else is not a name.
_CARELESS = re.compile(r" *\w+(?:[ ./-]{1,3}\w+){0,3} *")
_LONGEST_CARELESS = 48


def look_at_name(examination: Examination, context: GateContext) -> Examination:
    """The gate `name`: a legal, unused name, and a printable description.

    Codes: `illegal_name`, `spelled_alike`, `cooling_down`, `description`. Repair: `respelled`.
    """
    given = examination.repaired.skill.name
    name = given
    if (broken := name_rule(given)) is not None:
        better = _respelled(given)
        if better is None or context.names.get(folded(better)) in context.usable:
            return refused(examination, _found("name", broken))
        name = better
    other = context.names.get(folded(name), name)
    if other != name and other in context.usable:
        sentence = f"{quoted(name)} differs from {other} only in case or Unicode form. Choose another name"
        return refused(examination, Finding("name", "spelled_alike", sentence))
    name = other
    if name != given:
        note = Finding("name", "respelled", f"the name {quoted(given)} is written {name}")
        examination = mended(examination, note, name=name)
    description = examination.repaired.skill.description
    if len(description) > _LONGEST_DESCRIPTION or not all(c.isprintable() or c in "\n\t" for c in description):
        sentence = f"description: write at most {_LONGEST_DESCRIPTION} printable characters, not {quoted(description)}"
        return refused(examination, Finding("name", "description", sentence))
    return cooled(examination, context, "name")


def cooled(examination: Examination, context: GateContext, gate: Gate) -> Examination:
    """Return the examination, ended if a skill of this name is cooling down."""
    name = examination.repaired.skill.name
    why = context.cooling.get(folded(name))
    if why is None:
        return examination
    sentence = f"{name} is not examined again yet: {why}. Propose another"
    return refused(examination, Finding(gate, "cooling_down", sentence))


def look_at_effects(examination: Examination, context: GateContext) -> Examination:
    """The gate `effects`: gain, requirements and consumption name known fluents of allowed kinds and amounts.

    Codes: `unknown_fluent`, `wrong_kind`, `amount`, `wrong_units`, `over_capacity`, `learn_count`, `no_gain`,
    `unknown_action`. Repairs: `unknown_target` (dropped), `ephemeral` (set to match the gain).
    """
    skill, vocab = examination.repaired.skill, context.knowledge.vocabulary
    broken = _broken(skill, context)
    if broken:
        return refused(examination, *(_found("effects", one) for one in broken[:_MOST_FINDINGS]))
    if skill.target is not None and (unknown := known_rule("target", skill.target, vocab.targets)) is not None:
        sentence = f"target: {unknown.problem}, so it is removed. {unknown.remedy}"
        examination = mended(examination, Finding("effects", "unknown_target", sentence), target=None)
    if (wrong := ephemeral_rule(skill.gain, skill.ephemeral, vocab)) is not None:
        sentence = f"ephemeral {wrong.problem}: it is changed"
        examination = mended(examination, Finding("effects", "ephemeral", sentence), ephemeral=not skill.ephemeral)
    return examination


def _broken(skill: Skill, context: GateContext) -> list[Broken]:
    """Return the broken rules of the effects, the first one per field."""
    vocab, fluents = context.knowledge.vocabulary, context.knowledge.fluents
    found = [learn_count_rule(skill.learn_count), gain_rule(skill.gain)]
    count = 1 if found[0] is not None else skill.learn_count
    for part in PARTS:
        for name, amount in getattr(skill, part).items():
            unknown = known_rule(part, name, fluents, "unknown_fluent")
            if unknown is not None:
                found.append(unknown)
                continue
            fluent = fluents[name]
            found.append(kind_rule(part, fluent) or amount_rule(part, fluent, amount, vocab, count))
            if part == "gain" and found[-1] is None and amount.at(count) < 1:
                problem = f"is 0 for n = {count}"
                found.append(Broken("amount", f"gain.{name}", problem, "Gain at least 1 for the learn_count"))
            if sum(one is not None for one in found) >= _MOST_FINDINGS:
                break
    unknown_action = next((a for a in skill.actions if a not in vocab.actions), None)
    if unknown_action is not None:
        found.append(known_rule("actions", unknown_action, vocab.actions, "unknown_action"))
    return [one for one in found if one is not None]


def _respelled(name: str) -> str | None:
    """Return the name in lower case with `_` as separator, if that is legal; else None."""
    if len(name) > _LONGEST_CARELESS or not _CARELESS.fullmatch(name):
        return None
    better = re.sub(r"\W+", "_", name.strip()).lower()
    return better if name_rule(better) is None else None


def _found(gate: Gate, broken: Broken) -> Finding:
    sentence = f"{broken.field}: {broken.problem}. {broken.remedy}"
    return Finding(gate, broken.code, sentence)
