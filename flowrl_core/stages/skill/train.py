"""Train: go on from the latest checkpoint until a look is due."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flowrl_core.errors import TrainingError
from flowrl_core.learning.schedule import look_target, next_action
from flowrl_core.learning.success import SuccessWindow, empty_window
from flowrl_core.randomness import jax_stream
from flowrl_core.stages.skill.context import RunContext, open_run
from flowrl_core.stages.timing import mark, write_timing
from flowrl_core.storage.atomic import write_bytes
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records import Look
from flowrl_core.storage.registry import Registry

__all__ = ["UpdateReport", "train"]

logger = logging.getLogger(__name__)

_LOG_SECONDS = 5.0
_SMALLER_STEP = 0.25
"""Of the learning rate, once training has diverged."""


@dataclass(frozen=True)
class UpdateReport:
    """Where training stands after an update.

    Attributes:
        run_frames, budget: frames so far, and the most the run may use.
        success, target: smoothed training success (None until enough episodes have ended), and where the next look is
            due.
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
            return "training success not known yet: too few episodes have ended"
        return f"training success {self.success:.2f} (look at {self.target:.2f})"


def train(
    home: Home,
    run: int,
    *,
    should_stop: Callable[[], bool],
    on_update: Callable[[UpdateReport], None],
    epoch: int | None = None,
) -> Literal["look", "stopped"]:
    """Train the run until a look is due, or until `should_stop` says so; either way a checkpoint is saved.

    Raises:
        TrainingError: it diverged, and again after it had gone back to the last good checkpoint with a smaller step.
        ConflictError: the run was claimed after `epoch`; nothing is saved then.
    """
    with Registry.open(home) as registry:
        context = open_run(home, registry, run, epoch=epoch)
        looks = registry.looks(run)
    trainer = _Trainer(context, looks)
    while True:
        if trainer.is_due() and trainer.save():
            return "look"
        if should_stop() and trainer.save():
            return "stopped"
        on_update(trainer.step())


class _Trainer:
    """One process's work on a run: the learner's state, the success window and the files."""

    _state: Any
    _window: SuccessWindow
    _update: int
    _saved_update: int
    _step_scale: float

    def __init__(self, context: RunContext, looks: list[Look]) -> None:
        from flowrl_core.storage.checkpoints import TrainCheckpoints

        mark("imported")
        self._context = context
        self._looks = looks
        self._num_steps = len(context.plan.steps)
        self._training = context.config.training
        self._learner = context.learner()
        self._plan = context.plan_arrays()
        self._checkpoints = TrainCheckpoints(context.directory.checkpoints)
        self._logged = -math.inf
        self._restore()
        mark("ready")

    @property
    def budget(self) -> int:
        """The most frames the run may use."""
        return self._training.frames

    @property
    def run_frames(self) -> int:
        """Environment steps of the run so far."""
        return self._update * self._training.num_envs * self._training.rollout_length

    def is_due(self) -> bool:
        """Whether training pauses here, for a look or because the run is over."""
        spec = self._context.config.evaluation
        if self._looks and self.run_frames < self._looks[-1].frames:
            return False  # what was looked at is damaged: it is trained again, with the same numbers
        return next_action(self.run_frames, self.budget, self.success(), self._looks, spec) != "train"

    def success(self) -> float:
        """The smoothed training success; NaN until there is enough to say."""
        return self._window.success(self._num_steps, self._context.config.evaluation.min_episodes)

    def step(self) -> UpdateReport:
        """One rollout and one update, with a metrics line, and a checkpoint when one is due."""
        state, stats, parts = self._learner.step(
            self._state, self._plan, self._hyper, self._training.snapshot_fraction, self._training.world_uses
        )
        losses = {name: float(value) for name, value in parts._asdict().items()}
        if not all(math.isfinite(value) for value in losses.values()):
            which = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            self._go_back(f"update {self._update + 1}: a loss is not finite ({which})")
            return self._report()
        self._state = state
        self._update += 1
        self._window.add(np.asarray(stats.attempts), np.asarray(stats.successes), int(stats.episodes))
        mark("first_update")
        report = self._report()
        self._write_metrics(report, stats, losses)
        self._log(report)
        if (self._update - self._saved_update) >= self._training.checkpoint_updates:
            self.save()
        return report

    def save(self) -> bool:
        """Save a checkpoint of this update, unless there is one; False if training had to go back instead."""
        with Registry.open(self._context.home) as registry:
            registry.check_claim(self._context.record.id, self._context.epoch)
        write_timing(self._context.directory)
        if self._update == self._saved_update:
            return True
        if not _is_finite(self._state.params):
            # A loss is computed before its gradient is applied: this checkpoint would not be a good one.
            self._go_back(f"update {self._update}: a parameter is not finite")
            return False
        tree = {"learner": self._state, "window": self._window.as_dict()}
        facts = {"run_frames": self.run_frames, "routed_frames": self._state.routed_frames.tolist()}
        facts["step_scale"] = self._step_scale
        self._checkpoints.save(self._update, tree, metadata=facts)
        self._saved_update = self._update
        return True

    def _restore(self) -> None:
        """Go on from the last whole checkpoint, or begin."""
        from flowrl_core.envs.automaton import MAX_STEPS
        from flowrl_core.storage.checkpoints import load_tree

        blank = empty_window(MAX_STEPS)
        template = {"learner": self._learner.shape(), "window": blank.as_dict()}
        found = self._checkpoints.latest(template)
        if found is not None:
            self._update, tree, facts = found
            logger.info("resuming %s from update %d", self._context.plan.target, self._update)
            self._state, self._window = self._learner.resume(tree["learner"]), SuccessWindow.from_dict(tree["window"])
            self._scale_step(facts["step_scale"])
        else:
            seed, _ = load_tree(self._context.directory.seed)
            worlds, key = (jax_stream(self._context.seed, name) for name in ("worlds", "train"))
            self._state = self._learner.init(seed, worlds, key, self._training.world_uses)
            self._window, self._update = blank, 0
            self._scale_step(1.0)
        self._saved_update = self._first_update = self._update
        self._began = time.monotonic()
        _cut_metrics(self._context, self._update)

    def _scale_step(self, scale: float) -> None:
        from flowrl_core.learning.learner import hyperparameters

        self._step_scale = scale
        learning_rate = self._training.learning_rate * scale
        self._hyper = hyperparameters(self._training.model_copy(update={"learning_rate": learning_rate}))

    def _go_back(self, why: str) -> None:
        """Train again from the last checkpoint, once, with a smaller step.

        What is computed is the same again after a kill, so it diverges again and comes here again: nothing of it need
        be recorded before the next checkpoint.

        Raises:
            TrainingError: that was done before.
        """
        if self._step_scale < 1.0:
            raise TrainingError(
                f"{why}, also with {self._step_scale:g} of the learning rate; try a smaller learning_rate"
            )
        self._restore()
        self._scale_step(_SMALLER_STEP)
        logger.warning("%s; going on from update %d with %g of the learning rate", why, self._update, _SMALLER_STEP)

    def _report(self) -> UpdateReport:
        done = (self._update - self._first_update) * self._training.num_envs * self._training.rollout_length
        num_looks = sum(look.frames < self.run_frames for look in self._looks)
        return UpdateReport(
            update=self._update,
            run_frames=self.run_frames,
            budget=self.budget,
            success=_json_number(self.success()),
            target=look_target(num_looks, self._context.config.evaluation),
            frames_per_second=done / max(time.monotonic() - self._began, 1e-9),
        )

    def _write_metrics(self, report: UpdateReport, stats: Any, losses: dict[str, float]) -> None:
        line = {
            "update": report.update,
            "run_frames": report.run_frames,
            "time": time.time(),
            "success": report.success,
            "target": report.target,
            "steps": [_json_number(x) for x in self._window.steps(self._num_steps, 1)],
            "episodes": int(stats.episodes),
            "finished": int(stats.finished),
            "reward": _json_number(float(stats.reward)),
            "routed_frames": np.asarray(stats.routed_frames)[: len(self._context.remap.global_to_local)].tolist(),
            **losses,
        }
        with self._context.directory.metrics.open("ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def _log(self, report: UpdateReport) -> None:
        if time.monotonic() - self._logged >= _LOG_SECONDS:
            self._logged = time.monotonic()
            logger.info(
                "%s: %d of %d frames, %s, %.0f frames/s",
                self._context.plan.target,
                report.run_frames,
                report.budget,
                report.said,
                report.frames_per_second,
            )


def _is_finite(params: Any) -> bool:
    import jax

    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cut_metrics(context: RunContext, update: int) -> None:
    """Drop the lines behind the checkpoint, and a torn last one: they will be written again."""
    path = context.directory.metrics
    if not path.is_file():
        return
    kept = [line for line in path.read_bytes().splitlines() if _update_of(line) <= update]
    write_bytes(path, b"".join(line + b"\n" for line in kept))


def _update_of(line: bytes) -> float:
    try:
        return json.loads(line)["update"]
    except (ValueError, KeyError, TypeError):
        return math.inf
