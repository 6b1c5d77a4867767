"""Commit a run as a Prefect task, and report how it ended."""

from __future__ import annotations

import logging

from prefect import task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flowrl_core.errors import FlowRLError
from flowrl_core.stages.skill.directory import run_directory
from flowrl_core.stages.skill.process import RunOutcome, process
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.options import IDEMPOTENT
from tasks.orchestration.runs.termination import until_told
from tasks.skill.progress import end_progress

__all__ = ["final_state", "give_up", "is_decided", "process_run", "tidy"]

logger = logging.getLogger(__name__)

NOT_LEARNED = "NotLearned"


@task(name="process", **IDEMPOTENT)
def process_run(run: int, epoch: int) -> RunOutcome:
    """Commit and archive the run."""
    home = Home.from_environment()
    return until_told(lambda _: process(home, run, epoch=epoch))


def final_state(outcome: RunOutcome) -> State:
    """Return the final state of a run's flow run: Completed, whether or not the skill was learned."""
    said = f"success {outcome.success:.3f}, lower bound {outcome.success_lower_bound:.3f}, {outcome.run_frames} frames"
    if outcome.reason:
        said += f"; {outcome.reason}"
    logger.info("%s: %s", outcome.verdict, said)
    end_progress(f"{outcome.verdict}: {said}")
    return Completed(name="Learned" if outcome.verdict == "learned" else NOT_LEARNED, message=said)


def is_decided(run: int) -> bool:
    """Whether the registry has a verdict on the run, so that no training is left."""
    with Registry.open(Home.from_environment()) as registry:
        return registry.skill_runs.get(run).verdict is not None


def give_up(run: int, reason: FlowRLError, epoch: int) -> State:
    """End a run that is impossible as configured: a retry would fail in the same way."""
    logger.error("giving up: %s", reason)
    with Registry.open(Home.from_environment()) as registry:
        registry.skill_runs.fail(run, str(reason), epoch=epoch)
    end_progress(f"given up: {reason}")
    return Completed(name=NOT_LEARNED, message=str(reason))


def tidy(home: Home, run: int) -> None:
    """Archive a decided run whose process died before doing so."""
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        has_results = bool(registry.skill_runs.looks(run))
    if record.verdict is not None and has_results and run_directory(home, record).path.is_dir():
        process(home, run)
