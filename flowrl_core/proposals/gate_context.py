"""What the gates know of a campaign, and the notes they make on a proposal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flowrl_core.digest import digest
from flowrl_core.proposals.model import Examination, Finding, Proposal
from flowrl_core.proposals.recorded_transitions import RecordedTransitions
from flowrl_core.skills.constraints import PARTS
from flowrl_core.skills.frontier import SkillState
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import MAX_STEPS, Skill
from flowrl_core.text import folded

__all__ = ["GateContext", "effects_key", "mended", "refused"]


@dataclass(frozen=True, eq=False)
class GateContext:
    """What a proposal is held against.

    Attributes:
        knowledge: all skills there are, of the file and accepted ones.
        states: where each stands; one that is missing has not been tried yet.
        recorded: what was recorded in the environment.
        failed: what was tried and failed already, by name, in the order in which it was tried.
        cooling: what is not looked at again yet, and why: by name as `text.folded` folds it.
        max_revisions: how often a skill that failed may be proposed again.
        max_steps: steps that a plan may have.
    """

    knowledge: Knowledge
    states: Mapping[str, SkillState]
    recorded: RecordedTransitions
    failed: Mapping[str, tuple[Proposal, ...]] = field(default_factory=dict)
    cooling: Mapping[str, str] = field(default_factory=dict)
    max_revisions: int = 2
    max_steps: int = MAX_STEPS

    @cached_property
    def usable(self) -> frozenset[str]:
        """The skills that a plan may use: those that have not failed."""
        return frozenset(name for name in self.knowledge.skills if self.states.get(name) != "failed")

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Every name there is or was, by the form that `text.folded` folds it to."""
        return {folded(name): name for name in (*self.failed, *self.knowledge.skills)}

    @cached_property
    def effects(self) -> Mapping[str, str]:
        """The usable skills by their `effects_key`."""
        return {effects_key(skill): name for name, skill in self.knowledge.skills.items() if name in self.usable}

    @cached_property
    def failures(self) -> Mapping[str, tuple[Proposal, ...]]:
        """What failed and may be proposed again: by name, every definition that was tried."""
        tried = {name: past for name, past in self.failed.items() if past and name not in self.usable}
        for name, skill in self.knowledge.skills.items():
            if name not in self.usable:
                tried.setdefault(name, (Proposal(skill),))
        return tried

    def gainers(self, fluent: str, *, besides: str) -> list[str]:
        """The usable skills that gain a fluent, without the one of the name `besides`."""
        return [name for name in self.knowledge.providers(fluent) if name in self.usable and name != besides]

    def knowledge_with(self, skill: Skill) -> Knowledge:
        """The knowledge with one skill more, or with another definition of one that failed."""
        return replace(self.knowledge, skills={**self.knowledge.skills, skill.name: skill})

    def with_skill(self, skill: Skill) -> GateContext:
        """The context with the skill in it, not tried yet."""
        states = {name: state for name, state in self.states.items() if name != skill.name}
        return replace(self, knowledge=self.knowledge_with(skill), states=states)


def effects_key(skill: Skill) -> str:
    """What is the same for skills that gain, need and use up the same, whatever they are called."""
    effects = {part: sorted([f, a.per_n, a.fixed] for f, a in getattr(skill, part).items()) for part in PARTS}
    return f"effects:{digest(effects)}"


def refused(examination: Examination, *findings: Finding) -> Examination:
    """The examination, ended by these findings."""
    return replace(examination, refusals=findings)


def mended(examination: Examination, finding: Finding, **fields: Any) -> Examination:
    """The examination with fields of the skill changed, and a note of it."""
    skill = replace(examination.repaired.skill, **fields)
    return replace(
        examination,
        repaired=replace(examination.repaired, skill=skill),
        repairs=(*examination.repairs, finding),
    )
