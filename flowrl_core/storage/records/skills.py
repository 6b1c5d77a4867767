"""Records of skills: definitions, what is known of them in a campaign, and the figures of its table."""

from __future__ import annotations

from dataclasses import dataclass

from flowrl_core.skills.model import Skill
from flowrl_core.skills.skill_states import Fact
from flowrl_core.storage.records.library import Merge
from flowrl_core.storage.records.runs import Attempt

__all__ = ["SkillFact", "SkillFigures", "SkillRecord"]


@dataclass(frozen=True)
class SkillRecord:
    """A skill's definition under its identity (hash of environment and definition)."""

    identity: str
    name: str
    env: str
    skill: Skill


@dataclass(frozen=True)
class SkillFact(Fact):
    """What is known of one skill of a campaign; `skills.skill_states.derive` makes its state of this.

    Attributes:
        learned: a bundle exists for its identity, made by any campaign of the same library.
        failed: not tried again as things are; `cause` says why.
        cause: `verdict` (its last run in this campaign did not learn), `infrastructure` (more trouble since the
            campaign's last start than `max_retries`), `cancelled` (since the campaign's last start), `rejected` (a
            person refused it, and no start has named it in `retry` since), else "".
        executing: an attempt is outstanding whose run has no verdict, whichever campaign of the library submitted it.
        identity: what the campaign means by the skill's name now.
        retries: infrastructure trouble since the campaign's last start; another try is due while it is at most
            `max_retries`.
        reason: of the failure or of the last trouble, in words.
        attempt: the outstanding attempt, of whichever campaign of the library.
    """

    identity: str = ""
    retries: int = 0
    reason: str = ""
    attempt: Attempt | None = None


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
    merges: tuple[Merge, ...] = ()
