"""What a run leaves can be moved: no file names the place where it was written."""

import os

from corridor_runs import begin, copy_home, drive, facts, make_spec

from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.evaluate import evaluate
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.train import train
from flowrl_core.storage.layout import Home

SPEC = make_spec(
    "moved",
    "make_b",
    training={"frames": 2_000, "checkpoint_updates": 2},
    evaluation={"episodes": 64, "threshold": 0.3, "target": 0.1, "min_frames": 512, "min_episodes": 16},
    limits={"merge": "evaluated"},
)


def those_that_name(root, *tops):
    """The files below `tops` that hold the root's path, or even its last part, as text."""
    needles = [os.fsencode(root), os.fsencode(root.name)]
    files = [path for top in tops for path in top.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [path for path in files if any(needle in path.read_bytes() for needle in needles)]


def begun(home):
    """A run that is trained and looked at once, but not over."""
    run, config = begin(home, SPEC, "make_b").run, resolve("make_b", SPEC)
    prepare(home, run, config)
    train(home, run, should_stop=lambda: False, on_update=lambda report: None)
    evaluate(home, run)
    return run, config


def test_no_file_of_a_run_its_archive_or_a_version_names_the_homes_root(home, tmp_path):
    own = copy_home(home, tmp_path / "a-root-that-is-easily-found")
    run, config = begun(own)
    (directory,) = (own.runs / "moved").glob("make_b-*")
    assert (directory / "checkpoints").is_dir() and (directory / "seed").is_dir()
    assert those_that_name(own.root, directory) == []
    assert drive(own, run, config) is not None
    (kept,) = (own.archive / "moved").glob("make_b-*")
    assert those_that_name(own.root, kept) == those_that_name(own.root, own.versions) == []


def test_a_home_that_was_moved_in_mid_run_goes_on_as_if_it_had_not(home, tmp_path):
    run, config = begun(home)
    other = copy_home(home, tmp_path / "stays")
    drive(other, run, config)
    home.root.rename(tmp_path / "went elsewhere — и")
    moved = Home(tmp_path / "went elsewhere — и")
    drive(moved, run, config)
    assert facts(moved, run) == facts(other, run)
