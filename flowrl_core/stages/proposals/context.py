"""A campaign as a proposer sees it: the known skills, failures and their reasons, and refused proposals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flowrl_core.llm.briefing import Briefing, Failure, Known, Refused
from flowrl_core.proposals.accepted import grown
from flowrl_core.proposals.gate_context import GateContext
from flowrl_core.proposals.model import Proposal
from flowrl_core.proposals.recorded_transitions import load_transitions
from flowrl_core.skills.frontier import Frontier, frontier
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Skill
from flowrl_core.skills.skill_states import known_states
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.storage.records.proposals import ProposalRecord
from flowrl_core.storage.records.skill_runs import SkillRunRecord
from flowrl_core.storage.records.skills import SkillFact, SkillFigures
from flowrl_core.storage.registry import Registry
from flowrl_core.text import folded
from flowrl_core.types import FailedEnds

__all__ = ["ProposalContext", "initial_knowledge", "read_context"]

_MOST_REFUSED = 12
"""Maximum number of refused proposals in the next question; the latest are kept."""
_PATIENCE = 2
"""Rounds in which a name is refused before it cools down: a proposal refused once may come back corrected."""


@dataclass(frozen=True)
class ProposalContext:
    """Everything that proposals are made from and judged by.

    Attributes:
        spec: the campaign's parameters.
        knowledge: what the campaign may use: its knowledge base, and the accepted proposals that still have a plan.
        accepted: the newest accepted proposal of each name; `stale`: why some no longer count.
        figures: the figures of each skill, by name.
        history: all proposals, oldest first.
        failed: proposals that did not learn, by name, oldest first; includes definitions revised since.
        reflections: how each skill's last run went, by name.
    """

    spec: CampaignSpec
    knowledge: Knowledge
    accepted: Mapping[str, Skill] = field(default_factory=dict)
    stale: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, SkillFigures] = field(default_factory=dict)
    history: tuple[ProposalRecord, ...] = ()
    failed: Mapping[str, tuple[Proposal, ...]] = field(default_factory=dict)
    reflections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, SkillFact]:
        """The facts about each skill, by name."""
        return {name: one.fact for name, one in self.figures.items()}

    @cached_property
    def frontier(self) -> Frontier:
        """The frontier: which skills can be worked on towards the targets."""
        return frontier(self.knowledge, self.spec.targets, known_states(self.facts))

    @property
    def rounds(self) -> int:
        """Rounds of proposals so far."""
        return self.history[-1].round if self.history else 0

    @property
    def fruitless(self) -> int:
        """Number of latest rounds without an accepted proposal."""
        fruitful = max((one.round for one in self.history if one.state == "accepted"), default=0)
        return self.rounds - fruitful

    @property
    def added(self) -> frozenset[str]:
        """Names of the skills that proposals have added."""
        return frozenset(one.name for one in self.history if one.state == "accepted")

    def settings(self, name: str) -> dict[str, dict[str, Any]]:
        """The settings a skill makes for its own runs: from the knowledge base, and the frames of a proposal."""
        own = self.knowledge.settings(name)
        chosen = [one.frames for one in self.history if one.name == name and one.state == "accepted" and one.frames]
        return {**own, "training": {"frames": chosen[-1], **own["training"]} if chosen else own["training"]}

    @property
    def gate_context(self) -> GateContext:
        """The context that the gates judge by."""
        return GateContext(
            knowledge=self.knowledge,
            states=known_states(self.facts),
            recorded=load_transitions(self.knowledge.env),
            failed=self.failed,
            cooling=self._cooling,
            max_revisions=self.spec.frontier.max_revisions,
        )

    @property
    def briefing(self) -> Briefing:
        """The briefing for a proposer."""
        return Briefing(
            goals=self._goals,
            vocabulary=self.knowledge.vocabulary,
            known=tuple(self._known()),
            failures=tuple(self._failures()),
            refused=tuple(self._refused()),
            most=self.spec.frontier.proposals,
        )

    @property
    def _goals(self) -> tuple[str, ...]:
        """The unreachable targets; all targets if none is open (a dry run)."""
        return self.frontier.open or tuple(self.spec.targets)

    @property
    def _cooling(self) -> dict[str, str]:
        """Names that are skipped for some rounds because several recent rounds refused them, with the reason."""
        since = self.rounds - self.spec.frontier.cool_down
        rounds: dict[str, set[int]] = {}
        found: dict[str, str] = {}
        for one in self.history:
            if one.round > since and one.refusals and one.name and one.refusals[0].code != "cooling_down":
                name = folded(one.name)
                rounds.setdefault(name, set()).add(one.round)
                if len(rounds[name]) >= _PATIENCE:
                    found[name] = one.refusals[0].sentence
        return found

    def _known(self) -> Iterator[Known]:
        for name, skill in self.knowledge.skills.items():
            one = self.figures.get(name)
            state = known_states({name: one.fact}).get(name) if one else None
            if state != "failed":
                yield Known(
                    skill=skill,
                    state=state or "ready",
                    success=one.success if one and state == "learned" else None,
                    frames=one.run_frames if one and state == "learned" else None,
                    facts=self.reflections.get(name) if state == "learned" else None,
                )

    def _failures(self) -> Iterator[Failure]:
        for name, skill in self.knowledge.skills.items():
            one = self.figures.get(name)
            if one and one.fact.is_lasting:
                revision = len(self.failed.get(name, ()))
                yield Failure(skill, one.fact.reason, one.success, self.reflections.get(name), revision)
        for name, problem in self.stale.items():
            yield Failure(self.accepted[name], f"it no longer has a plan: {problem}")

    def _refused(self) -> Iterator[Refused]:
        latest = {one.name: one for one in self.history}
        refused = [one for one in latest.values() if one.state == "refused"]
        for one in sorted(refused, key=lambda one: one.id)[-_MOST_REFUSED:]:
            is_cooling = folded(one.name) in self._cooling
            yield Refused(one.name, one.round, one.refusals, is_cooling)


def initial_knowledge(knowledge: Knowledge, spec: CampaignSpec) -> Knowledge:
    """The knowledge that a campaign starts with: no skills if the frontier is a model alone."""
    if spec.frontier.kind != "model":
        return knowledge
    return dataclasses.replace(knowledge, skills={}, training={}, evaluation={})


def read_context(
    registry: Registry | None,
    campaign: str,
    spec: CampaignSpec,
    base: Knowledge,
    *,
    before: ProposalContext | None = None,
) -> ProposalContext:
    """The campaign's current context; without a registry, its initial one.

    Args:
        base: see `initial_knowledge`.
        before: an earlier context of the campaign, whose plans are reused if nothing was accepted since.
    """
    if registry is None or campaign not in {one.name for one in registry.campaigns.all()}:
        return ProposalContext(spec, base)
    history = tuple(registry.proposals.of(campaign))
    figures = registry.skills.figures(campaign)
    identities = {name: one.identity for name, one in figures.items()}
    accepted = {
        one.name: one.repaired.skill
        for one in history
        if one.repaired is not None and one.identity is not None and one.identity == identities.get(one.name)
    }
    is_same = before is not None and before.accepted == accepted
    knowledge, stale = (before.knowledge, before.stale) if before is not None and is_same else grown(base, accepted)
    ended = [run for run in registry.skill_runs.ended() if run.campaign == campaign]
    known = {one.identity: one.repaired for one in history if one.repaired is not None}
    failed: dict[str, list[Proposal]] = {}
    for run in ended:
        if run.verdict == "failed":
            tried = known.get(run.identity) or Proposal(registry.skills.definition(run.identity).skill)
            failed.setdefault(run.skill, []).append(tried)
    return ProposalContext(
        spec=spec,
        knowledge=knowledge,
        accepted=accepted,
        stale=stale,
        figures=figures,
        history=history,
        failed={name: tuple(tried) for name, tried in failed.items()},
        reflections={run.skill: _reflection(run) for run in ended if run.reflection is not None},
    )


def _reflection(run: SkillRunRecord) -> dict[str, object]:
    """How a run's episodes went, in the form a briefing uses."""
    reflection, plan = run.reflection, run.plan
    assert reflection is not None and plan is not None
    ends = zip(plan.steps, reflection.ends, strict=False)

    def told(failed: FailedEnds) -> dict[str, int]:
        return {name: count for name, count in failed._asdict().items() if count or name != "stranded"}

    return {
        "steps": [{"skill": step.skill, "n": step.n, **told(failed)} for step, failed in ends],
        "terms": [{"term": one.text, "fired": one.fired, "mean": one.mean} for one in reflection.terms],
        "changes": dict(reflection.changes),
        "median_length": reflection.median_length,
    }
