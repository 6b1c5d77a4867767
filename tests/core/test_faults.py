"""What can go wrong around a run that is no kill: divergence, a full disk, too little memory, a clock that jumps."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from corridor_runs import FRAMES_PER_UPDATE, begin, copy_home, drive, drive_in_child, facts, make_spec, metrics, start

from flowrl_core.errors import StorageError, TrainingError
from flowrl_core.learning.learner import Learner
from flowrl_core.learning.schedule import annealed
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.evaluate import evaluate
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.train import train
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

SPEC = make_spec(
    "faults",
    "make_b",
    training={"frames": 12_000, "checkpoint_updates": 4},
    evaluation={"target": 0.05, "min_frames": 4_096, "min_episodes": 16, "episodes": 128, "threshold": 0.2},
)
CONFIG = resolve("make_b", SPEC)
RATE = SPEC.training.learning_rate


def rate_of(update, scale=1.0):
    """The learning rate of an update, which falls over the budget."""
    return np.float32(annealed(CONFIG.training, (update - 1) * FRAMES_PER_UPDATE).learning_rate * scale)


def directory_of(home, run):
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
    return home.run_directory(record.campaign, record.skill, record.ordinal)


def train_on(home, run, should_stop=lambda: False):
    return train(home, run, should_stop=should_stop, on_update=lambda report: None)


@pytest.fixture
def prepared(basics, tmp_path):
    """A home with a run that is about to be trained."""
    home = copy_home(basics, tmp_path / "home")
    run = begin(home, SPEC, "make_b").run
    prepare(home, run, CONFIG)
    return home, run


class Diverging:
    """Makes the learner diverge at the updates that `when` names, while its learning rate is above `above`."""

    def __init__(self, monkeypatch, *, when, above=0.0, what="loss"):
        self.rates = []
        step = Learner.step

        def diverge(learner, state, plan, hyper, *others):
            number = int(state.num_updates) + 1
            self.rates.append((number, float(hyper.learning_rate)))
            after, stats, losses = step(learner, state, plan, hyper, *others)
            if when(number) and hyper.learning_rate > above:
                if what == "loss":
                    losses = losses._replace(**{losses._fields[0]: np.float32(np.nan)})
                else:
                    params = jax.tree.map(lambda leaf: leaf * np.float32(np.inf), after.params)
                    after = dataclasses.replace(after, params=params)
            return after, stats, losses

        monkeypatch.setattr(Learner, "step", diverge)


@pytest.mark.parametrize("what", ["loss", "parameters"])
def test_a_run_that_diverges_goes_back_to_its_checkpoint_once_with_a_smaller_step(prepared, monkeypatch, what, caplog):
    home, run = prepared
    diverging = Diverging(monkeypatch, when=lambda number: number == 7, above=RATE / 2, what=what)
    assert train_on(home, run) == "look"
    before = [number for number, rate in diverging.rates if rate == rate_of(number)]
    after = [number for number, rate in diverging.rates if rate == rate_of(number, scale=0.25)]
    assert len(before) + len(after) == len(diverging.rates)
    assert before[-1] in (7, 8) and after[0] == 5, "from the checkpoint of update 4"
    assert "not finite" in caplog.text and "0.25 of the learning rate" in caplog.text
    assert not re.search(r"\bnan\b", caplog.text), "what is not known, and what diverged, is said in words"
    lines = metrics(directory_of(home, run).metrics)
    assert [line["update"] for line in lines] == list(range(1, len(lines) + 1)), "no line is lost or doubled"
    assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))


def test_one_that_diverges_again_is_a_failure_of_training_that_says_so(prepared, monkeypatch):
    home, run = prepared
    Diverging(monkeypatch, when=lambda number: number == 7)
    with pytest.raises(TrainingError, match=r"update 7: a loss is not finite .*0\.25 of the learning rate"):
        train_on(home, run)


def test_the_smaller_step_is_kept_over_a_restart(prepared, monkeypatch, tmp_path):
    home, run = prepared
    diverging = Diverging(monkeypatch, when=lambda number: number == 7, above=RATE / 2)
    stopped = iter([*[False] * 13, True])
    assert train_on(home, run, lambda: next(stopped)) == "stopped"
    count = len(diverging.rates)
    assert train_on(home, run) == "look"
    assert all(rate == rate_of(number, scale=0.25) for number, rate in diverging.rates[count:])


def test_one_that_was_killed_after_it_went_back_ends_like_one_that_was_not(prepared, monkeypatch, tmp_path):
    home, run = prepared
    Diverging(monkeypatch, when=lambda number: number == 7, above=RATE / 2)
    killed = copy_home(home, tmp_path / "killed")
    train_on(home, run)

    class Killed(BaseException):
        pass

    updates = iter(range(100))

    def die_the_second_time(report):
        if report.update == 6 and next(updates) == 1:
            raise Killed

    with pytest.raises(Killed):
        train(killed, run, should_stop=lambda: False, on_update=die_the_second_time)
    train_on(killed, run)
    assert metrics(directory_of(killed, run).metrics) == metrics(directory_of(home, run).metrics)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def room_on(place):
    return shutil.disk_usage(place).free


def test_a_full_disk_stops_a_run_cleanly_and_with_room_again_it_ends_bit_equal(prepared, small_disk, tmp_path):
    home, run = prepared
    undisturbed = copy_home(home, tmp_path / "undisturbed")
    drive(undisturbed, run, CONFIG)
    crowded = copy_home(home, small_disk / "home")
    ballast = small_disk / "ballast"
    stages = {
        "train": lambda: train_on(crowded, run),
        "evaluate": lambda: evaluate(crowded, run),
        "process": lambda: drive(crowded, run, CONFIG),
    }
    for name, stage in stages.items():
        ballast.write_bytes(b"\0" * max(0, room_on(small_disk) - 8_192))
        with pytest.raises((StorageError, OSError)) as refused:
            stage()
        assert str(refused.value), name
        ballast.unlink()
        if name != "process":
            stage()
    assert drive(crowded, run, CONFIG).verdict == "learned"
    assert facts(crowded, run) == facts(undisturbed, run)


def test_a_file_system_that_became_read_only_changes_nothing(prepared, small_disk):
    home, run = prepared
    frozen = copy_home(home, small_disk / "home")
    before = sorted(path.relative_to(frozen.root) for path in frozen.root.rglob("*"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises((StorageError, OSError), match="unable to open database|read-only"):
        train_on(frozen, run)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert sorted(path.relative_to(frozen.root) for path in frozen.root.rglob("*")) == before
    assert train_on(frozen, run) == "look"


def test_a_clock_that_jumps_by_an_hour_changes_no_number(prepared, monkeypatch, tmp_path):
    home, run = prepared
    undisturbed = copy_home(home, tmp_path / "undisturbed")
    drive(undisturbed, run, CONFIG)
    real, jumps = time.time, iter([0.0, 3600.0, -3600.0] * 10_000)
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    assert drive(home, run, CONFIG).verdict == "learned"
    assert facts(home, run) == facts(undisturbed, run)


def test_a_process_without_memory_ends_and_one_that_has_some_goes_on(prepared, tmp_path):
    home, run = prepared
    undisturbed = copy_home(home, tmp_path / "undisturbed")
    drive(undisturbed, run, CONFIG)
    child = start(drive_in_child, home, run, CONFIG, report=tmp_path / "report", memory=64 * 2**20)
    assert child.wait() not in (0, -signal.SIGALRM)
    drive(home, run, CONFIG)
    assert facts(home, run) == facts(undisturbed, run)


def test_a_home_with_spaces_and_foreign_letters_on_another_file_system_than_the_temporary_files(basics):
    if not Path("/dev/shm").is_dir() or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev:
        pytest.skip("there is one file system here")
    root = Path("/dev/shm") / f"flowrl test größe {os.getpid()}"
    try:
        home = copy_home(basics, root)
        run = begin(home, SPEC, "make_b").run
        assert drive(home, run, CONFIG).verdict == "learned"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_a_home_is_not_needed_to_be_where_it_was(prepared, tmp_path):
    home, run = prepared
    train_on(home, run, should_stop=iter([False] * 6 + [True]).__next__)
    moved = Home(shutil.move(home.root, tmp_path / "moved"))
    assert drive(moved, run, CONFIG).verdict == "learned"
