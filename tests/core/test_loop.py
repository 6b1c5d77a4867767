"""The training loop on a learner that counts: killed, stopped and diverging runs, and what they leave."""

import copy
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrl_core.errors import ConflictError, TrainingError
from flowrl_core.learning.loop import EveryUpdates, Trainable, TrainingLoop, UpdateResult
from flowrl_core.storage.checkpoints import TrainCheckpoints
from flowrl_core.storage.metrics import MetricsFile

LENGTH = 12
NEVER = {"should_stop": lambda: False, "on_update": lambda progress: None}


class Killed(BaseException):
    """Stands for SIGKILL: nothing is done on its way out."""


def counter(*, bad_losses=(), bad_states=(), above=0.0):
    """A learner that adds up random numbers; its updates `bad_losses`, and its states after `bad_states`, are not
    finite while the step scale is above `above`. It consumes the state that it is given, as JAX does."""

    def step(state, update, step_scale):
        total, count = state.pop("total"), state.pop("count") + 1
        assert count == update
        drawn = np.random.default_rng(update).normal() * step_scale
        is_bad = update in bad_states and step_scale > above
        after = {"total": total + (math.inf if is_bad else drawn), "count": count}
        problem = "a loss is not finite (sum)" if update in bad_losses and step_scale > above else ""
        return UpdateResult(after, {} if problem else {"drawn": drawn}, problem)

    return Trainable(
        init=lambda: {"total": np.float64(0), "count": np.int64(0)},
        step=step,
        tree=dict,
        template=lambda: {"total": np.float64(0), "count": np.int64(0)},
        restore=dict,
        facts=lambda state, update: {"seen": update},
        problem=lambda state: "" if np.isfinite(state["total"]) else "the total is not finite",
    )


class MemoryCheckpoints:
    """All checkpoints of a run, in memory."""

    def __init__(self):
        self._saved = []

    def steps(self):
        return [step for step, _, _ in self._saved]

    def latest(self, template=None):
        return copy.deepcopy(self._saved[-1]) if self._saved else None

    def save(self, step, tree, *, metadata=None):
        self._saved.append(copy.deepcopy((step, tree, metadata)))


class Run:
    """What one run leaves, and a loop for each process that works on it."""

    def __init__(self, directory, *, updates=3, trainable=None, checkpoints=None, **options):
        self.checkpoints = checkpoints or MemoryCheckpoints()
        self.metrics = directory / "metrics.jsonl"
        self.options = {"policy": EveryUpdates(updates)} | options
        self.trainable = trainable or counter()

    def loop(self):
        return TrainingLoop("counter", self.trainable, self.checkpoints, MetricsFile(self.metrics), **self.options)

    def finish(self, *, length=LENGTH, **conditions):
        return self.loop().run(pause=lambda state, update: update >= length, **(NEVER | conditions))

    def killed_after(self, updates):
        """Work on, killed once so many updates are done."""
        done = []

        def die(progress):
            done.append(progress.update)
            if len(done) == updates:
                raise Killed

        with pytest.raises(Killed):
            self.finish(on_update=die)

    def lines(self):
        return [
            {name: value for name, value in json.loads(line).items() if name != "time"}
            for line in self.metrics.read_bytes().splitlines()
        ]

    def result(self):
        update, tree, facts = self.checkpoints.latest()
        return update, {name: leaf.tobytes() for name, leaf in tree.items()}, facts, self.lines()


@pytest.fixture
def quarters(monkeypatch):
    """The loop's clock: a quarter of a second passes each time it looks."""
    ticks = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: next(ticks) / 4, time=time.time)
    monkeypatch.setattr("flowrl_core.learning.loop.time", clock)


@settings(max_examples=8, deadline=None)
@given(kills=st.lists(st.integers(1, 5), max_size=3), stops=st.lists(st.integers(0, 4), max_size=2))
def test_a_run_that_is_killed_and_stopped_anywhere_ends_bit_equal_to_an_undisturbed_one(kills, stops):
    with tempfile.TemporaryDirectory() as root:
        directories = [Path(root, name) for name in ("disturbed", "undisturbed")]
        runs = [Run(path, checkpoints=TrainCheckpoints(path / "checkpoints")) for path in directories]
        for path in directories:
            path.mkdir()
        for updates in kills:
            if (runs[0].checkpoints.steps() or [0])[-1] + updates < LENGTH:
                runs[0].killed_after(updates)
        for updates in stops:
            remaining = iter([False] * updates + [True])
            runs[0].finish(should_stop=lambda remaining=remaining: next(remaining))
        for run in runs:
            assert run.finish() == "paused"
        assert runs[0].result() == runs[1].result()
        assert [line["update"] for line in runs[0].lines()] == list(range(1, LENGTH + 1))


def test_a_stop_saves_where_it_stands_and_the_next_process_goes_on_from_there(tmp_path):
    run = Run(tmp_path, updates=100)
    answers = iter([False, False, True])
    assert run.finish(should_stop=lambda: next(answers)) == "stopped"
    assert run.checkpoints.steps() == [2]
    reported = []
    assert run.finish(on_update=lambda progress: reported.append(progress.update)) == "paused"
    assert reported == list(range(3, LENGTH + 1)) and run.checkpoints.steps() == [2, LENGTH]


def test_nothing_is_saved_where_nothing_has_changed_but_the_owner_is_still_checked(tmp_path):
    run, checked = Run(tmp_path), []
    run.finish()
    before = run.result()
    run.options["before_save"] = lambda: checked.append(True)
    assert run.finish() == "paused" and run.finish(length=99, should_stop=lambda: True) == "stopped"
    assert run.result() == before and run.checkpoints.steps() == [3, 6, 9, 12] and len(checked) == 2


def test_a_process_that_lost_its_run_writes_no_checkpoint(tmp_path):
    def refuse():
        raise ConflictError("taken over")

    run = Run(tmp_path, before_save=refuse)
    with pytest.raises(ConflictError):
        run.finish()
    assert run.checkpoints.steps() == []


def test_the_policy_decides_by_updates_and_seconds_since_the_last_checkpoint(tmp_path, quarters):
    @dataclass(frozen=True)
    class EverySecond:
        def is_due(self, updates, seconds):
            asked.append((updates, seconds >= 1.0))
            return seconds >= 1.0

    asked = []
    run = Run(tmp_path, policy=EverySecond())
    run.finish()
    assert asked == [(1, False), (2, True), (1, False), (2, True)] * 3
    assert run.checkpoints.steps() == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("updates", [1, 3, 5])
def test_a_checkpoint_is_due_after_so_many_updates_and_not_before(updates):
    assert [EveryUpdates(updates).is_due(n, 1e9) for n in (updates - 1, updates, updates + 1)] == [False, True, True]


@pytest.mark.parametrize("what", ["bad_losses", "bad_states"])
def test_a_run_that_diverges_goes_back_once_with_a_smaller_step(tmp_path, what):
    run = Run(tmp_path, trainable=counter(**{what: [5, 6]}, above=0.5))
    reported = []
    assert run.finish(on_update=lambda progress: reported.append(progress.update)) == "paused"
    reported_back = [b for a, b in zip(reported, reported[1:], strict=False) if b <= a]
    assert reported_back == [3], "from the checkpoint of update 3, once"
    update, tree, facts = run.checkpoints.latest()
    assert (update, facts) == (LENGTH, {"seen": LENGTH, "step_scale": 0.25})
    drawn = [line["drawn"] for line in run.lines()]
    assert [line["update"] for line in run.lines()] == list(range(1, LENGTH + 1)), "no line is lost or doubled"
    assert tree["total"] == sum(drawn)
    assert drawn == [np.random.default_rng(n).normal() * (1.0 if n <= 3 else 0.25) for n in range(1, LENGTH + 1)]


@pytest.mark.parametrize("what", ["bad_losses", "bad_states"])
def test_one_that_diverges_again_is_a_training_error_that_says_where(tmp_path, what):
    run = Run(tmp_path, trainable=counter(**{what: [6]}))
    with pytest.raises(TrainingError, match=r"update 6: .* not finite.*0\.25 of the learning rate"):
        run.finish()
    assert run.checkpoints.steps() == [3], "nothing that is not finite was saved"


def test_the_smaller_step_is_kept_by_the_processes_that_follow(tmp_path):
    run = Run(tmp_path, trainable=counter(bad_losses=[2], above=0.5))
    assert run.finish(length=4) == "paused"
    run.trainable, done = counter(bad_losses=[8]), []
    with pytest.raises(TrainingError, match="update 8"):
        run.finish(on_update=lambda progress: done.append(progress.update))
    assert done == [5, 6, 7], "it does not go back a second time"
    assert [line["drawn"] for line in run.lines()] == [0.25 * np.random.default_rng(n).normal() for n in range(1, 8)]


@pytest.mark.parametrize("end", ["paused", "stopped"])
def test_an_end_where_the_state_is_bad_goes_back_and_trains_up_to_it_again(tmp_path, end):
    run = Run(tmp_path, updates=100, trainable=counter(bad_states=[4], above=0.5))
    done = []
    conditions = {"length": 4} if end == "paused" else {"should_stop": lambda: done[-1:] == [4]}
    assert run.finish(**conditions, on_update=lambda progress: done.append(progress.update)) == end
    assert done == [1, 2, 3, 4] * 2
    update, tree, facts = run.checkpoints.latest()
    assert update == 4 and np.isfinite(tree["total"]) and facts["step_scale"] == 0.25


def test_progress_tells_the_speed_of_this_process_since_it_began(tmp_path, quarters):
    run, seen = Run(tmp_path), []
    run.finish(length=3)
    run.finish(length=5, on_update=seen.append)
    assert [progress.update for progress in seen] == [4, 5]
    assert [progress.updates_per_second for progress in seen] == [1 / 0.5, 2 / 1.0]


@pytest.mark.parametrize("torn", [b'{"upda', b"[]", b"7", b'{"other": 1}', b"\xff"])
def test_lines_behind_an_update_and_torn_ones_are_cut(tmp_path, torn):
    log = MetricsFile(tmp_path / "metrics.jsonl")
    log.cut(3)
    assert not log.path.exists()
    for update in range(1, 6):
        log.append({"update": update})
    with log.path.open("ab") as file:
        file.write(torn)
    log.cut(3)
    assert log.path.read_text() == "".join(f'{{"update": {n}}}\n' for n in (1, 2, 3))
    with pytest.raises(ValueError, match="JSON"):
        log.append({"update": 4, "loss": math.nan})
