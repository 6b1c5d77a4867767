"""The input to a model: a campaign's goals, the game, the known skills, and the results of earlier proposals.

The same briefing gives the same text, byte for byte: nothing in it depends on a clock, an id or the order of a set.
What is fixed for the whole campaign goes into the instructions, so that servers can cache it; what changes from round
to round goes into the text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from flowrl_core.llm.answers import Judgement, ProposedSkills, as_answered, proposed_skills
from flowrl_core.llm.prompting import as_data, clean, data_string, number, render
from flowrl_core.llm.seam import Question
from flowrl_core.programs.language import MAX_REWARD
from flowrl_core.programs.model import Program
from flowrl_core.programs.parsing import GRAMMAR, MAX_LENGTH, MAX_TERMS
from flowrl_core.programs.registers import registers_of
from flowrl_core.proposals.model import Finding, Proposal
from flowrl_core.skills.effects import as_text
from flowrl_core.skills.frontier import SkillState
from flowrl_core.skills.model import MAX_STEPS, Linear, Skill
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["DERIVED", "Briefing", "Failure", "Known", "Refused", "judge_question", "propose_question"]

DERIVED: Mapping[str, str] = {
    "gained": "gained.X: change of inv.X, or of another count or total X, in this step of the game",
    "since": "since.X: change of inv.X, or of another count or total X, since the plan's step began",
    "new_ach": "new_ach.X: true in the step of the game that raised ach.X",
    "closer": "closer.X: by how much dist.X shrank in this step of the game",
    "d": "d.X: change of the vital X in this step of the game",
}
"""The meaning of the names that programs may use besides the fluents, by prefix."""

_STATES: Mapping[SkillState, str] = {
    "learned": "learned",
    "submitted": "in training",
    "ready": "waiting to be trained",
    "blocked": "waiting for other skills",
    "blocked_by_failed": "waiting for a skill that failed",
    "failed": "failed",
}
_KIND_NOTES = {
    "place": " (lost when left)",
    "distance": " (the largest: none in view)",
    "total": " (of an episode, never falls; pay for none but dealt.X with the target X)",
}
_HIDDEN_NOTE = " (rewards only)"
_MOST_TERMS = 8


@dataclass(frozen=True)
class Known:
    """A skill that the campaign already has.

    Attributes:
        state: its state in the campaign.
        success: end-to-end success rate in its last look, in [0, 1].
        frames: environment steps spent on its training.
        facts: its measurements, as JSON-ready data.
    """

    skill: Skill
    state: SkillState
    success: float | None = None
    frames: int | None = None
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Failure:
    """A skill that was trained but not learned.

    Attributes:
        reason: why its run ended, as text.
        success: end-to-end success rate in its last look, in [0, 1].
        reflection: what happened in its episodes: `steps` (where they ended), `terms` of the reward, `changes` of
            fluents, `median_length`; each may be missing.
        revision: number of earlier proposals to revise it.
    """

    skill: Skill
    reason: str
    success: float | None = None
    reflection: Mapping[str, Any] | None = None
    revision: int = 0


@dataclass(frozen=True)
class Refused:
    """A proposal that the gates refused.

    Attributes:
        round: the round that last proposed it, counted from 1.
        findings: the problems found in it.
        is_cooling: whether the gates ignore it for now.
    """

    name: str
    round: int
    findings: tuple[Finding, ...]
    is_cooling: bool = False


@dataclass(frozen=True)
class Briefing:
    """The complete input to a model about a campaign.

    Attributes:
        goals: the campaign's targets, in the campaign's order.
        vocabulary: the environment's.
        known, failures, refused: in the order of presentation.
        most: maximum number of skills in the answer.
    """

    goals: tuple[str, ...]
    vocabulary: Vocabulary
    known: tuple[Known, ...] = ()
    failures: tuple[Failure, ...] = ()
    refused: tuple[Refused, ...] = ()
    most: int = 4


def propose_question(briefing: Briefing, *, sample: int = 0) -> Question[ProposedSkills]:
    """Return the question for new skills.

    Args:
        briefing: the state of the campaign.
        sample: each number is an independent draw.
    """
    text = render(
        "propose",
        {
            **_situation(briefing),
            "refused": _lines(_refused(refused) for refused in briefing.refused),
            "example": _example(briefing.known),
            "most": str(briefing.most),
        },
    )
    form = proposed_skills(briefing.most, briefing.vocabulary)
    return Question(_propose_instructions(briefing.vocabulary), text, form, sample)


def judge_question(briefing: Briefing, proposal: Proposal, *, sample: int = 0) -> Question[Judgement]:
    """Return the question whether a proposal is worth training.

    Args:
        briefing: the state of the campaign.
        proposal: the proposal as changed by the gates.
        sample: each number is an independent draw.
    """
    vocab = briefing.vocabulary
    told = f"{_skill(proposal.skill, vocab)}\n  why: {data_string(proposal.why)}; difficulty: {proposal.difficulty}"
    text = render("judge", {**_situation(briefing), "proposal": f"- {told}"})
    return Question(render("judge_system", {"env": vocab.env}), text, Judgement, sample)


def _propose_instructions(vocab: Vocabulary) -> str:
    return render(
        "propose_system",
        {
            "env": vocab.env,
            "capacity": str(vocab.capacity),
            "names": _names(vocab),
            "actions": " ".join(vocab.actions),
            "targets": " ".join(vocab.targets),
            "rules": _lines(vocab.rules),
            "grammar": GRAMMAR,
            "length": str(MAX_LENGTH),
            "terms": str(MAX_TERMS),
            "reward": f"{MAX_REWARD:g}",
        },
    )


def _situation(briefing: Briefing) -> dict[str, str]:
    """Return the fields that proposing and judging have in common."""
    return {
        "goals": _lines(data_string(goal) for goal in briefing.goals),
        "known": _lines(_known(known, briefing.vocabulary) for known in briefing.known),
        "failures": _lines(_failure(failure, briefing.vocabulary) for failure in briefing.failures),
    }


def _names(vocab: Vocabulary) -> str:
    """Return the fluents by kind and range, then the derived names."""
    groups: dict[str, list[str]] = {}
    for fluent in vocab.fluents:
        notes = f"{_KIND_NOTES.get(fluent.kind, '')}{_HIDDEN_NOTE if fluent.is_hidden else ''}"
        kind = f"{fluent.kind} {fluent.low}..{fluent.high}{notes}"
        groups.setdefault(kind, []).append(fluent.name)
    base = {fluent.name for fluent in vocab.fluents}
    used = {name.partition(".")[0] for name in registers_of(vocab).slots if name not in base}
    derived = [f"{text} (programs only)" for prefix, text in DERIVED.items() if prefix in used]
    return _lines([*(f"{kind}: {' '.join(names)}" for kind, names in groups.items()), *derived])


def _known(known: Known, vocab: Vocabulary) -> str:
    measured = [_STATES[known.state]]
    if known.success is not None:
        measured.append(f"success {known.success:.0%}")
    if known.frames is not None:
        measured.append(f"{_rounded(known.frames)} frames")
    lines = [_skill(known.skill, vocab), f"  state: {', '.join(measured)}"]
    if known.facts:
        lines.append(f"  measured: {as_data(known.facts)}")
    return "\n".join(lines)


def _failure(failure: Failure, vocab: Vocabulary) -> str:
    told = f"  failed: {data_string(failure.reason)}"
    if failure.success is not None:
        told += f", success {failure.success:.0%}"
    if failure.revision:
        told += f", revision {failure.revision}"
    return "\n".join([_skill(failure.skill, vocab), told, *_reflection(failure.reflection or {})])


def _reflection(reflection: Mapping[str, Any]) -> Iterable[str]:
    """Yield lines on the outcome of the episodes, from the fields that are present."""
    for step in list(reflection.get("steps", ()))[:MAX_STEPS]:
        ends = ", ".join(f"{number(step[key])} {key.replace('_', ' ')}" for key in _ENDS if step.get(key) is not None)
        yield f"  step {data_string(str(step.get('skill', '')), 64)} n={step.get('n', 1)}: {ends}"
    for term in list(reflection.get("terms", ()))[:_MOST_TERMS]:
        fired, mean = term.get("fired"), term.get("mean")
        paid = [] if fired is None else [f"fired {number(fired)}"]
        paid += [] if mean is None else [f"mean {number(mean)}"]
        yield f"  reward term {data_string(str(term.get('term', '')))}: {', '.join(paid)}"
    if changes := reflection.get("changes"):
        yield f"  mean changes of an episode: {as_data(changes)}"
    if (length := reflection.get("median_length")) is not None:
        yield f"  median length: {number(length)} steps of the game"


_ENDS = ("attempts", "done", "died", "timed_out", "stranded")


def _refused(refused: Refused) -> str:
    found = "; ".join(f"{finding.code}: {data_string(finding.sentence)}" for finding in refused.findings)
    cooling = ", not looked at again for now" if refused.is_cooling else ""
    return f"{data_string(refused.name, 64)} in round {refused.round}{cooling}: {found}"


def _skill(skill: Skill, vocab: Vocabulary) -> str:
    """Return a definition in a few lines, without empty fields."""
    base = {fluent.name for fluent in vocab.fluents}
    effects = {"requirements": skill.requirements, "consumption": skill.consumption, "gain": skill.gain}
    parts = [f"{part}: {_effects(amounts, base)}" for part, amounts in effects.items() if amounts]
    if skill.target:
        parts.append(f"target: {skill.target if skill.target in vocab.targets else data_string(skill.target, 64)}")
    if skill.learn_count > 1:
        parts.append(f"learn_count: {skill.learn_count}")
    programs = f"done: {data_string(skill.program.done, 1000)} reward: {data_string(skill.program.reward, 1000)}"
    return f"{data_string(skill.name, 64)}: {data_string(skill.description)}\n  {'; '.join(parts)}\n  {programs}"


def _example(known: Iterable[Known]) -> str:
    """Return an example answer: many servers constrain a model to the schema without showing it.

    Only a learned skill serves as example; if there is none, it is a made-up skill that no game has.
    """
    for skill in (entry.skill for entry in known if entry.state == "learned"):
        # A person's definition may exceed the answer schema.
        with contextlib.suppress(ValidationError):
            return _answer(skill)
    return _answer(_NOBODYS)


def _answer(skill: Skill) -> str:
    """Return the answer that would propose the skill, in the field order of the schema."""
    told = replace(
        skill,
        name=clean(skill.name, 64),
        description=clean(skill.description, 200),
        program=Program(clean(skill.program.done, 1000), clean(skill.program.reward, 1000)),
        target=clean(skill.target or "", 64),
    )
    return ProposedSkills(skills=[as_answered(Proposal(told, "easy", "The goals need it"))]).model_dump_json()


_NOBODYS = Skill(
    name="make_x",
    description="Make x beside a y",
    program=Program("since.x >= n", "gained.x"),
    gain={"inv.x": Linear(1)},
    requirements={"near.y": Linear(0, 1)},
    target="y",
)


def _effects(amounts: Mapping[str, Linear], base: set[str]) -> str:
    named = {name if name in base else data_string(name, 64): amount for name, amount in amounts.items()}
    return ", ".join(f"{name} {as_text(amount)}" for name, amount in named.items())


def _lines(entries: Iterable[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries) or "none"


def _rounded(frames: int) -> str:
    """Return the frames to two digits, so that the text changes seldom and the journal can answer it."""
    return f"{float(f'{frames:.2g}'):,.0f}"
