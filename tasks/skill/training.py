"""Train a run as a Prefect task: a progress bar in the UI, and a safe stop on request."""

from __future__ import annotations

import threading

from prefect import task

from flowrl_core.stages.skill.train import UpdateReport, train
from flowrl_core.storage.layout import Home
from tasks.options import RESUMABLE
from tasks.orchestration.runs.termination import until_told
from tasks.orchestration.runs.watchdog import beat
from tasks.skill.progress import ProgressBar

__all__ = ["train_run"]


@task(name="train", **RESUMABLE)
def train_run(run: int, skill: str, epoch: int) -> str:
    """Train until a look is due; return "look", or "stopped" if the process was asked to end."""
    home = Home.from_environment()
    beat()
    has_trained = threading.Event()
    with ProgressBar(skill) as progress:

        def show(report: UpdateReport) -> None:
            beat()
            has_trained.set()
            progress.show(report)

        return until_told(
            lambda should_stop: train(home, run, should_stop=should_stop, on_update=show, epoch=epoch),
            has_unsaved=has_trained.is_set,
        )
