"""The campaign data that gates use, and helpers that record their findings."""

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
    """A frozen record of the data that a proposal is checked against.

    Attributes:
        knowledge: all current skills, from the file and from accepted proposals.
        states: the state of each skill; a missing one is untried.
        recorded: transitions recorded in the environment.
        failed: by name, the definitions that were tried and failed, in order.
        cooling: by name (folded by `text.folded`), why it is not examined again yet.
        max_revisions: how often a failed skill may be proposed again.
        max_steps: maximum number of steps of a plan.
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
        """Every current or earlier name, by its form folded by `text.folded`."""
        return {folded(name): name for name in (*self.failed, *self.knowledge.skills)}

    @cached_property
    def effects(self) -> Mapping[str, str]:
        """The usable skills by their `effects_key`."""
        return {effects_key(skill): name for name, skill in self.knowledge.skills.items() if name in self.usable}

    @cached_property
    def failures(self) -> Mapping[str, tuple[Proposal, ...]]:
        """Failed skills that may be proposed again: by name, every definition that was tried."""
        tried = {name: past for name, past in self.failed.items() if past and name not in self.usable}
        for name, skill in self.knowledge.skills.items():
            if name not in self.usable:
                tried.setdefault(name, (Proposal(skill),))
        return tried

    def gainers(self, fluent: str, *, besides: str) -> list[str]:
        """Return the usable skills that gain a fluent, except the one named `besides`."""
        return [name for name in self.knowledge.providers(fluent) if name in self.usable and name != besides]

    def knowledge_with(self, skill: Skill) -> Knowledge:
        """Return the knowledge with this skill added, or replacing a failed definition."""
        return replace(self.knowledge, skills={**self.knowledge.skills, skill.name: skill})

    def with_skill(self, skill: Skill) -> GateContext:
        """Return the context with the skill added as untried."""
        states = {name: state for name, state in self.states.items() if name != skill.name}
        return replace(self, knowledge=self.knowledge_with(skill), states=states)


def effects_key(skill: Skill) -> str:
    """Return a key that skills with the same gain, requirements and consumption share, whatever their names."""
    effects = {part: sorted([f, a.per_n, a.fixed] for f, a in getattr(skill, part).items()) for part in PARTS}
    return f"effects:{digest(effects)}"


def refused(examination: Examination, *findings: Finding) -> Examination:
    """Return the examination, ended by these refusals."""
    return replace(examination, refusals=findings)


def mended(examination: Examination, finding: Finding, **fields: Any) -> Examination:
    """Return the examination with fields of the skill repaired, and the finding that explains it."""
    skill = replace(examination.repaired.skill, **fields)
    return replace(
        examination,
        repaired=replace(examination.repaired, skill=skill),
        repairs=(*examination.repairs, finding),
    )
