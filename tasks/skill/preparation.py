"""Prepare a run as a Prefect task, and hold its resources while it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect import task

from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.timing import mark
from flowrl_core.storage.layout import Home
from tasks.options import IDEMPOTENT
from tasks.orchestration.runs.termination import until_told
from tasks.orchestration.runs.workplace import workplace

__all__ = ["prepare_run", "skill_workplace"]


def skill_workplace(run: int, attempt: int, stall_minutes: float) -> AbstractContextManager[int]:
    """Return the `workplace` of the run, with one device to train on."""
    return workplace(run, attempt, stall_minutes=stall_minutes)


@task(name="prepare", **IDEMPOTENT)
def prepare_run(run: int, config: SkillConfig, epoch: int) -> str:
    """Plan, remap and seed the run; return the path of its sealed directory."""
    home = Home.from_environment()
    path = until_told(lambda _: prepare(home, run, config, epoch=epoch))
    mark("prepared")
    return str(path)
