"""The directory of one skill's run: the files that every run has, and those of its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowrl_core.storage.layout import Home, RunDirectory
from flowrl_core.storage.records.skill_runs import SkillRunRecord

__all__ = ["SkillRunDirectory", "run_directory"]


@dataclass(frozen=True)
class SkillRunDirectory(RunDirectory):
    """The files of a skill's run. `path` need not exist yet."""

    @property
    def plan(self) -> Path:
        """The plan as JSON."""
        return self.path / "plan.json"

    @property
    def remap(self) -> Path:
        """Global to local indices as JSON."""
        return self.path / "remap.json"

    @property
    def module(self) -> Path:
        """The generated, readable Python module."""
        return self.path / "module.py"

    @property
    def seed(self) -> Path:
        """The seed checkpoint."""
        return self.path / "seed"


def run_directory(home: Home, record: SkillRunRecord) -> SkillRunDirectory:
    """The directory of the run while it is in progress."""
    return SkillRunDirectory(home.run_directory(record.campaign, record.skill, record.ordinal).path)
