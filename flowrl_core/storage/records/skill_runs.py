"""Records of skills' runs and their looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowrl_core.skills.model import Plan
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.types import FailedEnds

__all__ = ["Look", "SkillRunRecord", "Verdict"]

Verdict = Literal["learned", "failed"]


@dataclass(frozen=True)
class SkillRunRecord:
    """One training of one skill.

    Attributes:
        ordinal: counts the runs of this skill's name over all campaigns from 1 (names that differ only in case or
            Unicode form count as one); with campaign and skill it determines the directory.
        plan, remap, config, seeds: None until the run is sealed. `remap`: global to local index; `seeds`: global
            index to the version it starts from (None: freshly initialised).
        verdict: None while the run is open, even through infrastructure trouble.
        reason: why it failed, in words; "" otherwise.
        epoch: number of processes that have begun to work on it; see `Runs.claim`.
        reflection: how its episodes went at its end, if recorded.
    """

    id: int
    family: str
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
        frames: run_frames when it was taken; the first look at a frame count stands.
        level: one-sided error level of `lower_bound`, corrected for the looks.
        target: the smoothed training success that triggered it.
        steps: success of each plan step on its own.
        worlds: seeds of the worlds used.
        number: from 1; 0 before it is recorded.
        ends: by plan step, how the episodes that failed in it ended; empty in looks older than this field.
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
    ends: tuple[FailedEnds, ...] = ()

    @property
    def success(self) -> float:
        """Share of the episodes that reached the end of the plan."""
        return self.successes / self.episodes
