"""A small campaign that is disturbed at a crash point while it runs through a real server, and ends none the less.

The server's workers were started with FLOWRL_CRASH_FILE in their environment.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import invariants
import psutil
from flow_runs import end_of, flow_run, process_of, spec, start, until

import flowrl_core
import tasks
from flowrl_core.skills.knowledge import shipped
from flowrl_core.specs.campaign import CampaignSpec, LimitsSpec
from flowrl_core.storage.atomic import write_text
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.types import MergePolicy
from tasks.campaign.campaign_runs import CampaignRun

__all__ = ["CASES", "Disturbed", "named_points"]

Victim = Literal["who passes", "the other"]

# Passed by a campaign's own process.
CAMPAIGN_POINTS = ["before_submission", "after_submission", "before_submission:2", "after_submission:2"]
# Passed by the process of a skill's run, in the order in which it does.
SKILL_POINTS = [
    "tree_before_rename",  # the seed checkpoint
    "tree_after_rename",
    "before_seal",
    "between_seal_and_record",
    "tree_before_rename:2",  # a mid-run checkpoint
    "tree_after_rename:2",
    "before_look_record",
    "after_look_record",
    "after_comparison",  # where the merge policy measures
    "after_version_rename:2",
    "after_version:2",
    "commit_version:2",
    "commit_merge:2",
    "commit_bundle",
    "before_registry_commit",
    "after_registry_commit",
    "after_registry_commit:2",
    "after_archive",
]
CASES: list[tuple[str, Victim]] = [
    *((point, "who passes") for point in (*CAMPAIGN_POINTS, *SKILL_POINTS)),
    # At the first submission there is no other yet.
    *((point, "the other") for point in (*CAMPAIGN_POINTS[2:], *SKILL_POINTS)),
]
_MOST_STARTS = 4


def named_points() -> set[str]:
    """All crash points in the code."""
    sources = [path for package in (flowrl_core, tasks) for path in Path(package.__file__).parent.rglob("*.py")]
    return {name for path in sources for name in re.findall(r'crash_point\("(\w+)"\)', path.read_text())}


@dataclass(frozen=True)
class Disturbed:
    """Campaigns of one home, each with two targets that no other campaign has learned.

    Attributes:
        crash_file: what the workers' FLOWRL_CRASH_FILE names.
    """

    home: Home
    registry: Registry
    crash_file: Path

    def wanted(self, merge: MergePolicy = "most_frames") -> CampaignSpec:
        """A campaign that is still to be started."""
        number = len(self.registry.campaigns.all())
        # Whoever earns a little more for the same is another skill.
        rewards = re.compile(r'reward = "(gained\.[bc])"')
        text = rewards.sub(rf'reward = "{1 + number / 1000} * \1"', shipped("corridor").read_text())
        knowledge = f"disturbed-{number}.toml"
        write_text(self.home.knowledge_file(knowledge), text)
        limits = LimitsSpec(max_parallel=2, max_retries=4, merge=merge)
        return spec(f"disturbed-{number}", "make_b", "make_c", knowledge=knowledge, limits=limits)

    def survives(self, point: str, victim: Victim) -> None:
        """Run a campaign in which a process dies at the point; start it again until it ends, then check everything.

        Args:
            victim: who passes the point; or the other, the campaign's process for a skill's and the other way round:
                then who passes hangs at the point meanwhile, and dies afterwards.
        """
        wanted = self.wanted("evaluated" if point == "after_comparison" else "most_frames")
        with self._armed(point if victim == "who passes" else f"{_with_number(point)}:hang"):
            run = start(self.registry, wanted)
            process = until(self._met, f"a process at {point}")
            if victim == "the other":
                if point in CAMPAIGN_POINTS:
                    self._kill_a_skill(wanted.campaign)
                else:
                    self._kill_the_campaign(run, wanted)
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(process).kill()
        self.carry_on(wanted)

    def carry_on(self, wanted: CampaignSpec) -> None:
        """Start the campaign, or attach to it, until it ends by itself; then check everything."""
        for _ in range(_MOST_STARTS):
            end = end_of(start(self.registry, wanted))
            if not end.is_crashed():
                break
        assert end.is_completed(), end
        invariants.check(self.home, self.registry, wanted.campaign)

    @contextlib.contextmanager
    def _armed(self, text: str) -> Iterator[None]:
        assert self._met() is None
        write_text(self.crash_file, text)
        try:
            yield
        finally:
            for path in self.crash_file.parent.glob(f"{self.crash_file.name}*"):
                path.unlink()

    def _met(self) -> int | None:
        """The process that has met its fate."""
        found = list(self.crash_file.parent.glob(f"{self.crash_file.name}.*"))
        return int(found[0].suffix[1:]) if found else None

    def _kill_the_campaign(self, run: CampaignRun, wanted: CampaignSpec) -> None:
        """And start it again, while who passes the point still hangs."""
        process_of(run.id).kill()
        until(lambda: flow_run(run.id).state.is_crashed(), "the campaign's crash")
        again = start(self.registry, wanted)
        assert not again.attached
        until(lambda: flow_run(again.id).state.is_running(), "the second start")

    def _kill_a_skill(self, campaign: str) -> None:
        (attempt,) = (one for one in self.registry.attempts.outstanding(campaign) if one.flow_run_id)
        until(lambda: process_of(attempt.flow_run_id), "the process of a skill").kill()


def _with_number(point: str) -> str:
    return point if ":" in point else f"{point}:1"
