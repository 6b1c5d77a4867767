"""Records of skills: definitions, facts about them in a campaign, and the figures of its table."""

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
    """The facts about one skill of a campaign; `skills.skill_states.derive` derives its state from them.

    Attributes:
        learned: a bundle exists for its identity, made by any campaign of the same library.
        failed: it is not tried again for now; `cause` says why.
        cause: `verdict` (its last run in this campaign did not learn), `infrastructure` (more trouble since the
            campaign's last start than `max_retries`), `cancelled` (since the campaign's last start), `rejected` (a
            person refused it, and no start has named it in `retry` since), else "".
        executing: a run without a verdict has an outstanding attempt, from any campaign of the library.
        identity: the identity that the skill's name currently has in the campaign.
        retries: infrastructure trouble since the campaign's last start; it is tried again while this is at most
            `max_retries`.
        reason: reason of the failure or of the last trouble, in words.
        attempt: the outstanding attempt, from any campaign of the library.
    """

    identity: str = ""
    retries: int = 0
    reason: str = ""
    attempt: Attempt | None = None


@dataclass(frozen=True)
class SkillFigures:
    """The figures of one skill in a campaign's table; `fact` says why it failed.

    The figures are those of the run that learned it, else of its latest run in the campaign. Without a run they are 0
    or None.

    Attributes:
        expert: global index.
        run, ordinal, run_campaign: the run, and what determines its directory.
        routed_frames: frames routed to the skill's own expert in the run; 0 until the run ends.
        success, success_lower_bound, episodes: of the run's last look.
        looks: number of looks.
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
