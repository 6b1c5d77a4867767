"""A training loop for any learner: resume, metrics, checkpoints, divergence, pauses. No JAX here.

A learner family supplies three things:

- a `Trainable`: functions that make the first state, take one update, and define the contents of a checkpoint;
- storage for checkpoints and metrics: `storage.checkpoints.TrainCheckpoints` and `storage.metrics.MetricsFile`;
- conditions: when to save (`CheckpointPolicy`), when to pause (for an evaluation, or at the end), when to stop (the
  process was asked to end).

        loop = TrainingLoop("my run", trainable, checkpoints, metrics, policy=EveryUpdates(40))
        end = loop.run(pause=is_finished, should_stop=should_stop, on_update=show)

A killed run resumes from its last checkpoint. If `step` is a function of the state alone (random streams are part of
the state, or are derived from the update's number), the result is bit-equal to that of an undisturbed run. A run that
diverges goes back to its last checkpoint, so its result then depends on when that was saved.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from flowrl_core.errors import TrainingError

__all__ = [
    "CheckpointPolicy",
    "CheckpointStore",
    "EveryUpdates",
    "MetricsLog",
    "Progress",
    "Trainable",
    "TrainingLoop",
    "UpdateResult",
]

logger = logging.getLogger(__name__)

S = TypeVar("S")

_SMALLER_STEP = 0.25
"""Factor on the learning rate after training has diverged."""


@dataclass(frozen=True)
class UpdateResult(Generic[S]):
    """The result of one update.

    Attributes:
        state: the state after the update.
        metrics: JSON-ready figures for the metrics file, without NaN and infinity.
        problem: why the update cannot be used, such as "a loss is not finite (policy)"; empty if it can.
    """

    state: S
    metrics: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Trainable(Generic[S]):
    """A learner as a record of functions; `S` is its complete state.

    Attributes:
        init: the state before the first update.
        step: `step(state, update, step_scale)` takes update number `update` (counted from 1), with `step_scale` times
            the configured step size. It may consume `state`.
        tree: the arrays of a state, as a checkpoint holds them.
        template: a tree of the same structure, whose leaves give shape and dtype.
        restore: the state from a tree read from a checkpoint.
        facts: `facts(state, update)`: JSON-ready metadata, readable without the tree. The loop adds `step_scale`.
        problem: why a state must not be saved; empty if it may. A loss is computed before its gradient is applied, so
            parameters can be bad although the losses were good.
    """

    init: Callable[[], S]
    step: Callable[[S, int, float], UpdateResult[S]]
    tree: Callable[[S], Any]
    template: Callable[[], Any]
    restore: Callable[[Any], S]
    facts: Callable[[S, int], Mapping[str, Any]] = lambda state, update: {}
    problem: Callable[[S], str] = lambda state: ""


class CheckpointStore(Protocol):
    """Storage of checkpoints, such as `storage.checkpoints.TrainCheckpoints`."""

    def latest(self, template: Any = None) -> tuple[int, Any, dict[str, Any]] | None:
        """Return the update, tree and facts of the last complete checkpoint; None if there is none."""

    def save(self, step: int, tree: Any, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of an update."""


class MetricsLog(Protocol):
    """Storage of metrics, such as `storage.metrics.MetricsFile`."""

    def append(self, line: Mapping[str, Any]) -> None:
        """Add the figures of one update, which include its number as `update`."""

    def cut(self, update: int) -> None:
        """Drop the figures of all later updates, which will be computed again."""


class CheckpointPolicy(Protocol):
    """When a checkpoint is due. Each pause and stop saves one as well."""

    def is_due(self, updates: int, seconds: float) -> bool:
        """Whether to save now; `updates` and `seconds` count from the last checkpoint (or the start)."""


@dataclass(frozen=True)
class EveryUpdates:
    """A checkpoint every `updates` updates."""

    updates: int

    def is_due(self, updates: int, seconds: float) -> bool:
        """Whether enough updates have passed since the last checkpoint."""
        return updates >= self.updates


@dataclass(frozen=True)
class Progress(Generic[S]):
    """The progress of training. The state is valid until the next update, which may consume it.

    Attributes:
        update: number of updates of the run so far.
        updates_per_second: rate in this process since it began or went back.
    """

    update: int
    state: S
    updates_per_second: float


class TrainingLoop(Generic[S]):
    """One process's work on a run; constructing it restores the run from its last checkpoint, or begins it.

    Args:
        name: of the run, for log lines.
        before_save: called before each save, even if nothing has changed since the last one; an exception from it
            prevents the save. A family uses it to check that this process still owns the run.
        smaller_step: the step scale after a divergence.
    """

    _state: S
    _update: int
    _saved_update: int
    _step_scale: float

    def __init__(
        self,
        name: str,
        trainable: Trainable[S],
        checkpoints: CheckpointStore,
        metrics: MetricsLog,
        *,
        policy: CheckpointPolicy,
        before_save: Callable[[], None] = lambda: None,
        smaller_step: float = _SMALLER_STEP,
    ) -> None:
        self._name = name
        self._trainable = trainable
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._policy = policy
        self._before_save = before_save
        self._smaller_step = smaller_step
        self._restore()

    def run(
        self,
        *,
        pause: Callable[[S, int], bool],
        should_stop: Callable[[], bool],
        on_update: Callable[[Progress[S]], None],
    ) -> Literal["paused", "stopped"]:
        """Take updates until one of the conditions holds; a checkpoint is saved in either case.

        Args:
            pause: `pause(state, update)`: whether training pauses here, for example for an evaluation, or is finished.
                It depends on these arguments alone, so that a killed run pauses at the same update.
            should_stop: whether the process was asked to end.
            on_update: called after each update, and after going back.

        Raises:
            TrainingError: training diverged again after it had gone back with a smaller step.
        """
        while True:
            if pause(self._state, self._update) and self.save():
                return "paused"
            if should_stop() and self.save():
                return "stopped"
            on_update(self.step())

    def step(self) -> Progress[S]:
        """Take one update, append its metrics, and save a checkpoint if the policy says so."""
        number = self._update + 1
        result = self._trainable.step(self._state, number, self._step_scale)
        if result.problem:
            self._go_back(f"update {number}: {result.problem}")
            return self._progress()
        self._state, self._update = result.state, number
        self._metrics.append({"update": number, "time": time.time(), **result.metrics})
        if self._policy.is_due(number - self._saved_update, time.monotonic() - self._saved_at):
            self.save()
        return self._progress()

    def save(self) -> bool:
        """Save a checkpoint of this update unless it exists; return False if training had to go back instead."""
        self._before_save()
        if self._update == self._saved_update:
            return True
        if problem := self._trainable.problem(self._state):
            self._go_back(f"update {self._update}: {problem}")
            return False
        facts = {**self._trainable.facts(self._state, self._update), "step_scale": self._step_scale}
        self._checkpoints.save(self._update, self._trainable.tree(self._state), metadata=facts)
        self._note_saved()
        return True

    def _restore(self) -> None:
        """Resume from the last complete checkpoint, or begin."""
        found = self._checkpoints.latest(self._trainable.template())
        if found is not None:
            self._update, tree, facts = found
            logger.info("resuming %s from update %d", self._name, self._update)
            self._state, self._step_scale = self._trainable.restore(tree), facts["step_scale"]
        else:
            self._update, self._state, self._step_scale = 0, self._trainable.init(), 1.0
        self._metrics.cut(self._update)
        self._note_saved()
        self._first_update, self._began = self._update, time.monotonic()

    def _go_back(self, why: str) -> None:
        """Train again from the last checkpoint, once, with a smaller step.

        A killed run repeats the same computation, diverges again and arrives here again, so nothing needs to be
        recorded before the next checkpoint.

        Raises:
            TrainingError: training had already gone back once.
        """
        if self._step_scale < 1.0:
            scale = f"{self._step_scale:g}"
            raise TrainingError(f"{why}, even with {scale} of the learning rate; try a smaller learning_rate")
        self._restore()
        self._step_scale = self._smaller_step
        logger.warning("%s; resuming from update %d with %g of the learning rate", why, self._update, self._step_scale)

    def _note_saved(self) -> None:
        self._saved_update, self._saved_at = self._update, time.monotonic()

    def _progress(self) -> Progress[S]:
        seconds = max(time.monotonic() - self._began, 1e-9)
        return Progress(self._update, self._state, (self._update - self._first_update) / seconds)
