"""Train: resume from the latest checkpoint and train until a look is due."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flowrl_core.learning.loop import EveryUpdates, Progress, TrainingLoop
from flowrl_core.stages.skill.context import RunContext, open_run
from flowrl_core.stages.skill.trainable import RENEWABLE, LookSchedule, SkillState, skill_trainable
from flowrl_core.stages.timing import mark, write_timing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.metrics import MetricsFile
from flowrl_core.storage.registry import Registry

__all__ = ["UpdateReport", "train"]

logger = logging.getLogger(__name__)

_LOG_SECONDS = 5.0


@dataclass(frozen=True)
class UpdateReport:
    """The progress of training after an update.

    Attributes:
        run_frames, budget: frames so far, and the run's maximum.
        success, target: smoothed training success (None until enough episodes have ended), and the success at which
            the next look is due.
        frames_per_second: of this process.
    """

    update: int
    run_frames: int
    budget: int
    success: float | None
    target: float
    frames_per_second: float

    @property
    def said(self) -> str:
        """The training success in words."""
        if self.success is None:
            return "training success not yet known: too few episodes have ended"
        return f"training success {self.success:.2f} (look at {self.target:.2f})"


def train(
    home: Home,
    run: int,
    *,
    should_stop: Callable[[], bool],
    on_update: Callable[[UpdateReport], None],
    epoch: int | None = None,
) -> Literal["look", "stopped"]:
    """Train the run until a look is due or `should_stop` returns True; either way a checkpoint is saved.

    Raises:
        TrainingError: it diverged, and again after a restart from the last good checkpoint with a smaller step.
        ConflictError: the run was claimed after `epoch`; nothing is saved then.
    """
    with Registry.open(home) as registry:
        context = open_run(home, registry, run, epoch=epoch)
        schedule = LookSchedule(context, tuple(registry.skill_runs.looks(run)))
    loop = _loop(context, schedule)
    mark("ready")
    logged = -math.inf

    def report(progress: Progress[SkillState]) -> None:
        nonlocal logged
        current = _report(schedule, progress)
        if time.monotonic() - logged >= _LOG_SECONDS:
            logged = time.monotonic()
            _log(context, current)
        on_update(current)

    end = loop.run(pause=schedule.is_due, should_stop=should_stop, on_update=report)
    return "look" if end == "paused" else "stopped"


def _loop(context: RunContext, schedule: LookSchedule) -> TrainingLoop[SkillState]:
    """The training loop, restored from the run's last checkpoint."""
    from flowrl_core.storage.checkpoints import Anew, TrainCheckpoints

    mark("imported")
    trainable = skill_trainable(context, schedule)
    anew = Anew(RENEWABLE, lambda: trainable.tree(trainable.init()))

    def before_save() -> None:
        with Registry.open(context.home) as registry:
            registry.runs.check_claim(context.record.id, context.epoch)
        write_timing(context.directory)

    return TrainingLoop(
        context.plan.target,
        trainable,
        TrainCheckpoints(context.directory.checkpoints, anew=anew),
        MetricsFile(context.directory.metrics),
        policy=EveryUpdates(context.config.training.checkpoint_updates),
        before_save=before_save,
    )


def _report(schedule: LookSchedule, progress: Progress[SkillState]) -> UpdateReport:
    return UpdateReport(
        update=progress.update,
        run_frames=schedule.frames(progress.update),
        budget=schedule.budget,
        success=schedule.success(progress.state, progress.update),
        target=schedule.target(progress.update),
        frames_per_second=schedule.frames(1) * progress.updates_per_second,
    )


def _log(context: RunContext, report: UpdateReport) -> None:
    logger.info(
        "%s: %d of %d frames, %s, %.0f frames/s",
        context.plan.target,
        report.run_frames,
        report.budget,
        report.said,
        report.frames_per_second,
    )
