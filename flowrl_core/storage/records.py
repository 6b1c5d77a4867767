"""What the registry answers: frozen records. Times are seconds since the epoch; nothing is ordered by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flowrl_core.proposals.model import Examination, Finding, Proposal
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.skills.reflection import Reflection
from flowrl_core.skills.skill_states import Fact
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.types import MergeAction

__all__ = [
    "Attempt",
    "AttemptEnd",
    "Bundle",
    "BundleFacts",
    "Campaign",
    "Compared",
    "EvaluationOf",
    "EvaluationRecord",
    "Examined",
    "ExpertRecord",
    "ExpertResult",
    "Look",
    "Measured",
    "Merge",
    "MergeAction",
    "ProposalRecord",
    "ProposalState",
    "RunRecord",
    "SkillFact",
    "SkillFigures",
    "SkillRecord",
    "Verdict",
    "VersionRecord",
]

Verdict = Literal["learned", "failed"]
EvaluationOf = Literal["bundle", "heads"]
AttemptEnd = Literal["verdict", "infrastructure", "cancelled", "rejected"]
ProposalState = Literal["accepted", "refused"]


@dataclass(frozen=True)
class Campaign:
    """A campaign as it was last started.

    Attributes:
        spec: its parameters; the targets are all that were ever asked of it, `retry` is empty.
        start: number of its last start, counted over all campaigns: the greatest one was started last.
    """

    name: str
    env: str
    spec: CampaignSpec
    start: int
    created_at: float
    started_at: float

    @property
    def targets(self) -> tuple[str, ...]:
        """The skills it shall learn."""
        return tuple(self.spec.targets)


@dataclass(frozen=True)
class SkillRecord:
    """A skill's definition under its identity (hash of environment and definition)."""

    identity: str
    name: str
    env: str
    skill: Skill


@dataclass(frozen=True)
class Attempt:
    """One submission of a run.

    Attributes:
        number: counts the attempts of the skill in the campaign from 1.
        key: the idempotency key under which the run is submitted.
        flow_run_id: None until `set_flow_run`: then it is submitted (again) under its key.
        interruptions: infrastructure trouble counted for it, in all.
        end, reason, ended_at: None, "" and None while it is outstanding.
    """

    id: int
    run: int
    campaign: str
    identity: str
    skill: str
    number: int
    key: str
    flow_run_id: str | None
    interruptions: int
    end: AttemptEnd | None
    reason: str
    created_at: float
    ended_at: float | None


@dataclass(frozen=True)
class SkillFact(Fact):
    """What is known of one skill of a campaign; `skills.skill_states.derive` makes its state of this.

    Attributes:
        learned: a bundle exists for its identity, made by any campaign.
        failed: not tried again as things are; `cause` says why.
        cause: `verdict` (its last run in this campaign did not learn), `infrastructure` (more trouble since the
            campaign's last start than `max_retries`), `cancelled` (since the campaign's last start), `rejected` (a
            person refused it, and no start has named it in `retry` since), else "".
        executing: an attempt is outstanding whose run has no verdict, whichever campaign submitted it.
        identity: what the campaign means by the skill's name now.
        retries: infrastructure trouble since the campaign's last start; another try is due while it is at most
            `max_retries`.
        reason: of the failure or of the last trouble, in words.
        attempt: the outstanding attempt, of whichever campaign.
    """

    identity: str = ""
    retries: int = 0
    reason: str = ""
    attempt: Attempt | None = None


@dataclass(frozen=True)
class VersionRecord:
    """One immutable set of an expert's parameters.

    Attributes:
        expert: its global index.
        content: hash of the parameters, the name in the store of versions.
        frames: cumulative frames routed to the expert, those of its ancestors included.
        parent: the version it was seeded from.
        run: the run that made it.
    """

    id: int
    kind: str
    expert: int
    content: str
    frames: int
    parent: int | None
    run: int
    created_at: float


@dataclass(frozen=True)
class ExpertRecord:
    """An expert: one per identity. `head` is None until its skill is learned; `bundle` is that of its own skill."""

    global_index: int
    identity: str
    name: str
    observation_size: int
    num_actions: int
    width: int
    head: VersionRecord | None
    bundle: int | None


@dataclass(frozen=True)
class RunRecord:
    """One training of one skill.

    Attributes:
        ordinal: counts the runs of this skill's name over all campaigns from 1 (names that differ by case or Unicode
            form only count as one); with campaign and skill it names the directory.
        plan, remap, config, seeds: None until the run is sealed. `remap`: global to local index; `seeds`: global
            index to the version it starts from (None: freshly initialised).
        verdict: None while the run is open, also through infrastructure trouble.
        reason: why it failed, in words; "" otherwise.
        epoch: how many processes have begun to work on it; see `Registry.claim_run`.
        reflection: how its episodes went at its end, where that was recorded.
    """

    id: int
    kind: str
    campaign: str
    identity: str
    skill: str
    ordinal: int
    epoch: int
    plan: Plan | None
    remap: Mapping[int, int] | None
    config: SkillConfig | None
    seeds: Mapping[int, int | None] | None
    run_frames: int
    verdict: Verdict | None
    reason: str
    created_at: float
    ended_at: float | None
    reflection: Reflection | None = None


@dataclass(frozen=True)
class Look:
    """One evaluation from fresh worlds.

    Attributes:
        frames: run_frames at which it was taken; the first look at a number of frames stands.
        level: one-sided error level of `lower_bound`, corrected for the looks.
        target: smoothed training success that triggered it.
        steps: success of each plan step on its own.
        worlds: seeds that name the worlds used.
        number: from 1; 0 before it is recorded.
        ends: by plan step, deaths and timeouts of the episodes that failed in it; empty in looks older than this.
    """

    frames: int
    episodes: int
    successes: int
    lower_bound: float
    level: float
    target: float
    steps: tuple[float, ...] = ()
    worlds: tuple[int, ...] = ()
    number: int = 0
    ends: tuple[tuple[int, int], ...] = ()

    @property
    def success(self) -> float:
        """Share of the episodes that reached the end of the plan."""
        return self.successes / self.episodes


@dataclass(frozen=True)
class ExpertResult:
    """What a run made of one expert: its content, the frames routed to it, and the version it came from."""

    global_index: int
    content: str
    routed_frames: int
    seed_version: int | None


@dataclass(frozen=True)
class BundleFacts:
    """The measurement that a learned run's bundle states."""

    success: float
    lower_bound: float
    episodes: int
    threshold: float


@dataclass(frozen=True)
class Bundle:
    """The versions of all experts of a plan with which a skill was measured. `versions`: global index to version."""

    id: int
    run: int
    identity: str
    skill: str
    plan: Plan
    versions: Mapping[int, VersionRecord]
    success: float
    lower_bound: float
    episodes: int
    threshold: float


@dataclass(frozen=True)
class Measured:
    """What an expert's own skill came to with its head and with a run's version of it: all else was the same.

    Attributes:
        head: the version that was the head.
        episodes: played with each of the two.
        head_successes, version_successes: how many of them reached the end of the skill's plan.
    """

    head: int
    episodes: int
    head_successes: int
    version_successes: int


@dataclass(frozen=True)
class Compared:
    """What the merge policy `evaluated` decides by.

    Attributes:
        heads: the head of each expert of the run as it was read: global index to version id, None without one.
        measured: by global index, for the experts that could be measured and whose head is not the run's version.
    """

    heads: Mapping[int, int | None]
    measured: Mapping[int, Measured]


@dataclass(frozen=True)
class Merge:
    """What a run's end meant for one expert.

    Attributes:
        expert, name: its global index and its skill's name.
        action: new (its first head), updated (the head moved), kept.
        version: the run's version of it; `frames` are that version's cumulative frames.
        from_version, to_version: the head before and after.
        routed_frames: frames routed to it in this run.
        measured: where the merge policy compared the version with the head; else None.
    """

    run: int
    expert: int
    name: str
    action: MergeAction
    version: int
    from_version: int | None
    to_version: int | None
    frames: int
    routed_frames: int
    measured: Measured | None


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation of a learned skill, outside any run.

    Attributes:
        of: the versions of its newest bundle, or the heads of the same experts.
        versions: global index to version id.
        level: one-sided error level of `lower_bound`.
        steps: success of each plan step on its own.
        worlds: seeds that name the worlds used.
    """

    id: int
    identity: str
    of: EvaluationOf
    versions: Mapping[int, int]
    episodes: int
    successes: int
    lower_bound: float
    level: float
    steps: tuple[float, ...]
    worlds: tuple[int, ...]
    created_at: float


@dataclass(frozen=True)
class Examined:
    """What a round brought, once for each proposal, or once for an answer that was none.

    Attributes:
        examination: what the gates said; None for an answer that was malformed or empty.
        frames: the budget that was chosen for it.
        refusals: why it is refused besides, or what was wrong with the answer.
    """

    examination: Examination | None
    frames: int | None = None
    refusals: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.examination is None and not self.refusals:
            raise ValueError("an answer without a proposal needs a finding that says why")

    @property
    def is_accepted(self) -> bool:
        """Whether the campaign gets the skill."""
        return not self.all_refusals

    @property
    def all_refusals(self) -> tuple[Finding, ...]:
        """Why it does not get it."""
        return (*(self.examination.refusals if self.examination is not None else ()), *self.refusals)


@dataclass(frozen=True)
class ProposalRecord:
    """One proposal to a campaign, or an answer that was none, and what became of it.

    Attributes:
        round: counts the campaign's rounds from 1; what came in one answer shares it.
        name: of the skill, as repaired; "" without a proposal.
        model: who proposed it.
        call: the journal's key of the answer; "" without one.
        proposal, repaired: as proposed, and as the gates left it; None for an answer that was no proposal.
        refusals: why it was refused; empty if it was accepted.
        identity: of the definition that the campaign got; None unless accepted.
        frames: the budget that was chosen for it.
        revises: identity of the failed definition whose place it took.
    """

    id: int
    campaign: str
    round: int
    name: str
    model: str
    call: str
    state: ProposalState
    proposal: Proposal | None
    repaired: Proposal | None
    refusals: tuple[Finding, ...]
    repairs: tuple[Finding, ...]
    identity: str | None
    frames: int | None
    revises: str | None
    created_at: float


@dataclass(frozen=True)
class SkillFigures:
    """What a campaign's table shows of one skill; why it failed stands in `fact`.

    The figures are those of the run that learned it, else of its latest run in the campaign. Without a run they are 0
    or None.

    Attributes:
        expert: global index.
        run, ordinal, run_campaign: the run and where its directory is.
        routed_frames: frames routed to the skill's own expert in the run; 0 until the run ends.
        success, success_lower_bound, episodes: of the run's last look.
        looks: how many there were.
        bundle: id of the bundle if it is learned.
        started_at, ended_at: of the run.
        merges: of the run.
    """

    name: str
    identity: str
    fact: SkillFact
    expert: int | None = None
    run: int | None = None
    ordinal: int | None = None
    run_campaign: str | None = None
    routed_frames: int = 0
    run_frames: int = 0
    success: float | None = None
    success_lower_bound: float | None = None
    episodes: int = 0
    looks: int = 0
    threshold: float | None = None
    bundle: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    merges: tuple[Merge, ...] = field(default=())
