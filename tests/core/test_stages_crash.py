"""Killed by SIGKILL anywhere and run again, a run ends with the very bits of one that was left alone."""

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from corridor_runs import begin, copy_home, drive, drive_in_child, facts, make_spec, start

import flowrl_core
from flowrl_core.specs.overrides import resolve
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.train import train
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

pytestmark = pytest.mark.long

# Two looks: an early one that is not enough, and one that is.
SPEC = make_spec(
    "crash",
    "make_b",
    training={"frames": 20_000, "checkpoint_updates": 4},
    evaluation={"target": 0.05, "target_step": 0.4, "min_frames": 1_024, "min_episodes": 16, "episodes": 128}
    | {"threshold": 0.5},
    limits={"merge": "evaluated"},
    frontier={"kind": "hybrid"},
)

# (state of the home from which the process starts, where it is killed)
POINTS = [
    ("begun", "tree_before_rename"),  # the seed checkpoint
    ("begun", "tree_after_rename"),
    ("begun", "before_seal"),
    ("begun", "between_seal_and_record"),
    ("prepared", "tree_before_rename:2"),  # a mid-run checkpoint
    ("prepared", "tree_after_rename:2"),
    ("trained", "before_look_record"),
    ("trained", "after_look_record"),
    ("judged", "before_reflection_record"),
    ("judged", "tree_before_rename:2"),  # the second version
    ("judged", "tree_after_rename:2"),
    ("judged", "after_version_rename:2"),
    ("judged", "after_version:3"),
    ("judged", "after_comparison"),
    ("judged", "commit_version:2"),
    ("judged", "commit_merge:2"),
    ("judged", "commit_bundle"),
    ("judged", "before_registry_commit"),
    ("judged", "after_registry_commit"),  # in the registry
    ("judged", "after_registry_commit:2"),  # in the stage
    ("judged", "after_archive"),
]


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbed: the home at each of its stages, and what it left."""

    run: int
    config: SkillConfig
    homes: dict[str, Home]
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(basics: Home, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    home, homes = copy_home(basics, root / "home"), {}
    run, config = begin(home, SPEC, "make_b").run, resolve("make_b", SPEC)

    def keep(name):
        homes[name] = copy_home(home, root / name)

    keep("begun")
    prepare(home, run, config)
    keep("prepared")
    while verdict(home, run) is None:
        train(home, run, should_stop=lambda: False, on_update=lambda report: None)
        if "trained" not in homes:
            keep("trained")
        evaluate(home, run)
    keep("judged")
    assert drive(home, run, config).verdict == "learned"
    return Undisturbed(run, config, homes, facts(home, run))


def killed(undisturbed, stage, root, *, crash_at="", die_at_update=0):
    """A copy of the home at `stage`, in which a process was killed while it drove the run."""
    home = copy_home(undisturbed.homes[stage], root / "home")
    work = (home, undisturbed.run, undisturbed.config, die_at_update)
    child = start(drive_in_child, *work, report=root / "report", crash_at=crash_at)
    assert child.wait() == -signal.SIGKILL, (root / "report").read_text()
    return home


@pytest.fixture(scope="module")
def kills(
    undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Future[Home]]]:
    """The homes in which a process was killed at each of POINTS; two are killed at a time."""
    root = tmp_path_factory.mktemp("kills")
    with ThreadPoolExecutor(2) as pool:
        yield {
            (stage, point): pool.submit(killed, undisturbed, stage, root / str(number), crash_at=point)
            for number, (stage, point) in enumerate(POINTS)
        }


def test_the_undisturbed_run_has_what_a_kill_could_spoil(undisturbed):
    with Registry.open(undisturbed.homes["judged"]) as registry:
        looks = registry.skill_runs.looks(undisturbed.run)
    assert len(looks) >= 2 and looks[0].lower_bound < 0.5 <= looks[-1].lower_bound
    assert {merge["action"] for merge in undisturbed.facts["merges"]} == {"new", "updated"}
    assert [merge["measured"] is not None for merge in undisturbed.facts["merges"]] == [True, True, False]
    assert undisturbed.facts["reflection"].episodes == 32
    assert len(undisturbed.facts["metrics"]) > SPEC.training.checkpoint_updates + 2


def test_every_crash_point_of_a_run_is_passed_below():
    sources = Path(flowrl_core.__file__).parent.rglob("*.py")
    named = {name for path in sources for name in re.findall(r'crash_point\("(\w+)"\)', path.read_text())}
    # No run passes these; tests of their own do (housekeeping, rounds of proposals, restorations, sealing).
    rounds = {"after_model_answer", "after_model_record", "before_round_record", "after_round_record"}
    restorations = {"restored_files", "restored_directory", "restored_registry"}
    sealing = {"before_sealed_rename", "after_sealed_rename"}
    others = {"before_removal", *rounds, *restorations, *sealing}
    assert named == {point.partition(":")[0] for _, point in POINTS} | others


@pytest.mark.parametrize(("stage", "point"), POINTS)
def test_a_run_killed_at_a_crash_point_ends_bit_equal(undisturbed, kills, stage, point):
    home = kills[stage, point].result()
    drive(home, undisturbed.run, undisturbed.config)
    assert facts(home, undisturbed.run) == undisturbed.facts


def test_a_run_killed_at_any_update_and_run_again_by_a_new_process_ends_bit_equal(undisturbed, tmp_path):
    home = killed(undisturbed, "prepared", tmp_path, die_at_update=7)
    directory = home.runs / "crash" / "make_b-1"
    lines = [json.loads(line)["update"] for line in (directory / "metrics.jsonl").read_bytes().splitlines()]
    assert lines == [1, 2, 3, 4, 5, 6, 7] and [p.name for p in (directory / "checkpoints").iterdir()] == [
        "step-000000000004"
    ]
    work = (home, undisturbed.run, undisturbed.config)
    assert start(drive_in_child, *work, report=tmp_path / "again").answer() == {"compilations": 0}
    assert facts(home, undisturbed.run) == undisturbed.facts


def test_a_run_killed_over_and_over_ends_bit_equal(undisturbed, tmp_path):
    """Each process gets a little farther; nothing is bought by it, and nothing is left behind."""
    home = copy_home(undisturbed.homes["judged"], tmp_path / "home")
    for point in ("after_version", "commit_bundle", "after_registry_commit", "after_archive"):
        child = start(drive_in_child, home, undisturbed.run, undisturbed.config, report=tmp_path / "r", crash_at=point)
        assert child.wait() == -signal.SIGKILL
    drive(home, undisturbed.run, undisturbed.config)
    assert facts(home, undisturbed.run) == undisturbed.facts
