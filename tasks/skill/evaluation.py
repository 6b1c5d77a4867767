"""Prefect tasks for looks at a run: take a look, read the verdict, record the outcome of episodes."""

from __future__ import annotations

from prefect import task

from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.reflect import reflect
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.skill_runs import Verdict
from tasks.options import RESUMABLE
from tasks.orchestration.runs.termination import until_told
from tasks.orchestration.runs.watchdog import beat

__all__ = ["evaluate_run", "reflect_run", "verdict_of"]


@task(name="evaluate", **RESUMABLE)
def evaluate_run(run: int, epoch: int) -> float:
    """Take one look; return its lower bound."""
    home = Home.from_environment()
    beat()
    return until_told(lambda _: evaluate(home, run, epoch=epoch)).lower_bound


@task(name="reflect", **RESUMABLE)
def reflect_run(run: int, epoch: int) -> None:
    """Record the outcome of the run's episodes, once the looks have given a verdict."""
    home = Home.from_environment()
    beat()
    until_told(lambda _: reflect(home, run, epoch=epoch))


def verdict_of(run: int) -> Verdict | None:
    """Return the verdict of the looks so far; None while training goes on."""
    return verdict(Home.from_environment(), run)
