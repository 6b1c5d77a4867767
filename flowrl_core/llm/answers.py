"""What a language model answers: forms with a bound on every list and text, and the proposals they describe.

The forms are small on purpose. Servers turn their JSON Schema into a grammar, and a list or text without a bound is
where a small model runs on until its tokens are used up. There are no unions, nulls or free keys, which strict
structured output does not allow. Whether a fluent exists or a program is sound is for the gates to say, not
for the form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from flowrl_core.programs.model import Program
from flowrl_core.programs.registers import COUNTS
from flowrl_core.proposals.model import Difficulty, Proposal
from flowrl_core.skills.constraints import kind_rule
from flowrl_core.skills.model import Linear, Skill
from flowrl_core.vocabulary.model import Vocabulary

__all__ = [
    "MOST_SKILLS",
    "Judgement",
    "ProposedEffect",
    "ProposedSkill",
    "ProposedSkills",
    "as_answered",
    "proposed_skills",
    "to_proposals",
]

MOST_SKILLS = 8
"""Skills of one answer, at most; `FrontierSpec.proposals` may ask for fewer."""


class _Answer(BaseModel):
    # Strict: a model that writes "3" for 3 is told so, rather than understood.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Form = TypeVar("_Form", bound=_Answer)


class ProposedEffect(_Answer):
    """An amount of one fluent: per_n * n + fixed."""

    fluent: str = Field(min_length=1, max_length=64, description="Name of a fluent")
    per_n: int = Field(ge=0, le=9, description="Amount for each of the n; 0 if it does not depend on n")
    fixed: int = Field(ge=0, le=99, description="Amount that is added whatever n is")


def _each_once(effects: list[ProposedEffect]) -> list[ProposedEffect]:
    names = [effect.fluent for effect in effects]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is named more than once: name each fluent once, with its whole amount")
    return effects


_Effects = Annotated[list[ProposedEffect], AfterValidator(_each_once)]


class ProposedSkill(_Answer):
    """One new skill."""

    name: str = Field(min_length=1, max_length=64, description="Its name, of letters, digits and _")
    description: str = Field(max_length=300, description="What the player does, in one sentence")
    why: str = Field(max_length=300, description="Why it is the next step towards the goals")
    requirements: _Effects = Field(max_length=16, description="What must be there when it starts, and stays")
    consumption: _Effects = Field(max_length=8, description="What must be there when it starts, and is used up")
    gain: _Effects = Field(max_length=8, description="What it brings; the first one counts as its progress")
    ephemeral: bool = Field(description="true if it gains a place (near.*), else false")
    target: str = Field(max_length=64, description="The kind of block or creature to walk to; empty for none")
    learn_count: int = Field(ge=COUNTS[0], le=COUNTS[-1], description="The n that it is trained with")
    done: str = Field(min_length=1, max_length=1000, description="Program: the condition that ends it")
    reward: str = Field(min_length=1, max_length=1000, description="Program: the reward of each step of the game")
    difficulty: Difficulty = Field(description="How hard it is to learn")


class ProposedSkills(_Answer):
    """The skills that are proposed, the one that the others need first."""

    skills: list[ProposedSkill] = Field(max_length=MOST_SKILLS, description="New skills, prerequisites first")


class Judgement(_Answer):
    """Whether a proposed skill deserves its training."""

    why: str = Field(max_length=300, description="The reason, in one sentence")
    worth_learning: bool = Field(description="Whether it should be trained")


@lru_cache(maxsize=64)
def proposed_skills(most: int = MOST_SKILLS, vocabulary: Vocabulary | None = None) -> type[ProposedSkills]:
    """The form of an answer with at most `most` skills.

    Args:
        most: from 1 to 8.
        vocabulary: its schema then lists the fluents that effects may name, and the targets. That leads a model whose
            server keeps to the schema; an answer with another name is valid, and the gates refuse the skill alone.

    Raises:
        ValueError: `most` is out of range.
    """
    if not 1 <= most <= MOST_SKILLS:
        raise ValueError(f"most is {most}: use 1 to {MOST_SKILLS}")
    skill = ProposedSkill if vocabulary is None else _led(vocabulary)
    text = ProposedSkills.model_fields["skills"].description
    return create_model(
        "ProposedSkills",
        __base__=ProposedSkills,
        __doc__=ProposedSkills.__doc__,
        skills=(list[skill], Field(max_length=most, description=text)),  # type: ignore[valid-type]
    )


def to_proposals(answer: ProposedSkills) -> list[Proposal]:
    """The proposals that an answer describes, in its order. Nothing of them is checked but their form."""
    return [
        Proposal(
            Skill(
                name=skill.name,
                description=skill.description,
                program=Program(skill.done, skill.reward),
                gain=_linear(skill.gain),
                requirements=_linear(skill.requirements),
                consumption=_linear(skill.consumption),
                ephemeral=skill.ephemeral,
                target=skill.target or None,
                learn_count=skill.learn_count,
            ),
            skill.difficulty,
            skill.why,
        )
        for skill in answer.skills
    ]


def as_answered(proposal: Proposal) -> ProposedSkill:
    """The proposal as an answer would hold it; `to_proposals` is its inverse.

    Raises:
        ValidationError: the form does not allow what a person's definition may hold.
    """
    skill = proposal.skill
    return ProposedSkill(
        name=skill.name,
        description=skill.description,
        why=proposal.why,
        requirements=_effects(skill.requirements),
        consumption=_effects(skill.consumption),
        gain=_effects(skill.gain),
        ephemeral=skill.ephemeral,
        target=skill.target or "",
        learn_count=skill.learn_count,
        done=skill.program.done,
        reward=skill.program.reward,
        difficulty=proposal.difficulty,
    )


def _effects(amounts: Mapping[str, Linear]) -> list[ProposedEffect]:
    return [ProposedEffect(fluent=name, per_n=a.per_n, fixed=a.fixed) for name, a in amounts.items()]


def _linear(effects: Sequence[ProposedEffect]) -> dict[str, Linear]:
    return {effect.fluent: Linear(effect.per_n, effect.fixed) for effect in effects}


def _led(vocabulary: Vocabulary) -> type[ProposedSkill]:
    """The form of a skill whose schema lists what this environment knows."""
    names = [fluent.name for fluent in vocabulary.fluents if kind_rule("gain", fluent) is None]
    effect = _with_names(ProposedEffect, "fluent", names)
    skill = _with_names(ProposedSkill, "target", ["", *vocabulary.targets])
    fields: dict[str, Any] = {
        part: (Annotated[list[effect], AfterValidator(_each_once)], skill.model_fields[part])  # type: ignore[valid-type]
        for part in ("requirements", "consumption", "gain")
    }
    return create_model("ProposedSkill", __base__=skill, __doc__=skill.__doc__, **fields)


def _with_names(form: type[_Form], field: str, names: list[str]) -> type[_Form]:
    """The form with a schema that lists the names which the field may have; its check is as before."""
    told = copy(form.model_fields[field])
    told.json_schema_extra = {"enum": list(names)}
    fields: dict[str, Any] = {field: (str, told)}
    return create_model(form.__name__, __base__=form, __doc__=form.__doc__, **fields)
