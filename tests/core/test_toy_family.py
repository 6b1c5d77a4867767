"""A second family, which counts: run, claim, checkpoint, loop, parameters, housekeeping and backup without skills."""

import ast
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import toy_family
from registry_steps import SKILLS, make_spec
from toy_family import NUMBERS, TOY, directory_of, submit, work

from flowrl_core.errors import ConflictError, CorruptError, InputError, StorageError
from flowrl_core.stages.upkeep.families import FAMILIES
from flowrl_core.stages.upkeep.housekeeping import find_garbage, remove_garbage
from flowrl_core.storage import schema
from flowrl_core.storage.backup import backup, restore
from flowrl_core.storage.checkpoints import TrainCheckpoints
from flowrl_core.storage.database import writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.manifests import verify
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get

ALL = (*FAMILIES, TOY)
TOTAL = float(np.cumsum(NUMBERS)[-1])
SUBSTRATE = (
    *("archive", "atomic", "backup", "checkpoints", "damage", "families", "layout", "manifests"),
    *("metrics", "ownership", "sealed", "versions", "records.runs", "registry.runs", "registry.attempts"),
    *("registry.rows.runs", "registry.rows.attempts"),
)


@pytest.fixture
def home(new_home):
    return new_home


def kill_at(home, attempt, point):
    """Let another process work on the attempt until it is killed at this point."""
    command = [sys.executable, toy_family.__file__, str(home.root), str(attempt.id)]
    killed = subprocess.run(command, env={**os.environ, "FLOWRL_CRASH_AT": point}, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL


def aged(path, days=3):
    then = time.time() - days * 86_400
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then))
    return path


@pytest.mark.parametrize("module", [*SUBSTRATE, "learning.loop", "toy_family"])
def test_neither_the_family_nor_what_it_stands_on_imports_anything_of_skills(module):
    name = module if module == "toy_family" else f"flowrl_core.{'' if '.loop' in module else 'storage.'}{module}"
    tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    strange = ("flowrl_core.skills", "flowrl_core.proposals", "flowrl_core.stages", "flowrl_core.specs")
    assert imported and not [one for one in imported if one.startswith(strange)]


def test_a_run_without_campaign_and_subject_is_counted_published_and_archived(home, database):
    attempt = submit(home)
    run = work(home, attempt.id)
    assert (run.family, run.campaign, run.subject, run.verdict) == ("toy", "", None, "counted")
    assert get(home, run.result["content"])["total"] == TOTAL
    assert not directory_of(home, run).path.exists()
    kept = home.archived_run("toy", "count", 1).path
    assert {path.name for path in kept.iterdir()} == {"config.json", "metrics.jsonl"}
    with Registry.open(home) as registry:
        assert registry.attempts.get(attempt.id).end == "verdict"
        with pytest.raises(ConflictError, match="has ended: counted"):
            registry.attempts.begin(run.id)


def test_runs_of_one_name_go_on_side_by_side_each_with_one_outstanding_attempt(home, database):
    attempts = [submit(home), submit(home, "Count")]
    with Registry.open(home) as registry:
        runs = [registry.runs.get(attempt.run) for attempt in attempts]
        assert [run.ordinal for run in runs] == [1, 2], "on a file system that ignores case too"
        for run in runs:
            with pytest.raises(ConflictError, match="attempt 1 of run .* is outstanding"):
                registry.attempts.begin(run.id)
        assert registry.attempts.end(attempts[0].id, "infrastructure", "killed").interruptions == 1
        again = registry.attempts.begin(runs[0].id)
    assert again.number == 2 and len({attempt.key for attempt in (*attempts, again)}) == 3


def test_a_campaign_of_another_family_is_no_skills_campaign_and_keeps_its_name(home, database):
    with Registry.open(home) as registry:
        registry.campaigns.record(make_spec(campaign="skills"), SKILLS)
        row = {"name": "counting", "family": "toy", "env": "numbers", "spec": {"upto": 3}, "start": 2}
        with writing(registry.campaigns.engine) as tx:
            tx.execute(sa.insert(schema.campaigns).values(**row, created_at=1.0, started_at=1.0))
        assert [one.name for one in registry.campaigns.all()] == ["skills"]
        with pytest.raises(InputError, match="Campaigns of this registry: skills"):
            registry.campaigns.get("counting")
        with pytest.raises(InputError, match="'counting' is a campaign of the family toy. Use another name"):
            registry.campaigns.record(make_spec(campaign="counting"), SKILLS)


def test_a_subject_has_one_open_run_in_a_campaign_and_one_outstanding_attempt_in_a_line(home, database):
    with Registry.open(home) as registry:
        for name in ("one", "two"):
            registry.campaigns.record(make_spec(campaign=name), SKILLS)
        registry.campaigns.record(make_spec(campaign="own", fresh=True), SKILLS)
        names = ("one", "two", "own")
        runs = {name: registry.runs.open("toy", "x", campaign=name, subject="numbers") for name in names}
        assert registry.runs.open("toy", "x", campaign="one", subject="numbers") == runs["one"]
        assert [run.ordinal for run in runs.values()] == [1, 2, 3]
        first, apart = registry.attempts.begin(runs["one"].id), registry.attempts.begin(runs["own"].id)
        assert (first.line, apart.line) == ("", "own")
        with pytest.raises(ConflictError, match="attempt 1 of run 1 .x. is outstanding, and works on the same"):
            registry.attempts.begin(runs["two"].id)
        registry.attempts.end(first.id, "infrastructure")
        assert registry.attempts.begin(runs["two"].id).number == 1
        with pytest.raises(ConflictError, match="refused a row that conflicts"):
            registry.runs.open("toy", "x", campaign="nobody's")


@pytest.mark.parametrize(
    ("point", "steps"),
    [
        ("after_sealed_rename", []),
        ("tree_after_rename:2", [2, 4]),
        ("tree_before_rename:4", [4, 6]),
        ("after_archive", [10, 12]),
    ],
)
def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_bit_equal(home, tmp_path, point, steps):
    other = Home(tmp_path / "undisturbed")
    undisturbed = work(other, submit(other).id)
    attempt = submit(home)
    kill_at(home, attempt, point)
    with Registry.open(home) as registry:
        killed = registry.runs.get(attempt.run)
    assert TrainCheckpoints(directory_of(home, killed).checkpoints).steps() == steps
    seen = []
    run = work(home, attempt.id, on_update=lambda progress: seen.append(progress.update))
    assert run.result == undisturbed.result and run.verdict == "counted"
    assert seen == list(range(1 + (steps or [0])[-1], 1 + len(NUMBERS)))
    lines = home.archived_run("toy", "count", 1).metrics.read_text().splitlines()
    assert len(lines) == len(NUMBERS)


def test_a_stopped_run_stays_open_and_a_process_with_an_older_claim_saves_nothing(home, database):
    attempt = submit(home)
    updates = []

    def taken_over(progress):
        updates.append(progress.update)
        with Registry.open(home) as registry:
            registry.runs.claim(attempt.run)

    with pytest.raises(ConflictError, match="taken over by another process .claim 2, this one has 1"):
        work(home, attempt.id, on_update=taken_over)
    assert updates == [1]
    with Registry.open(home) as registry:
        run = registry.runs.get(attempt.run)
        assert run.verdict is None and TrainCheckpoints(directory_of(home, run).checkpoints).steps() == []
        for write in (
            lambda: registry.runs.seal(run.id, inputs="other", epoch=1),
            lambda: registry.runs.end(run.id, "counted", epoch=1),
        ):
            with pytest.raises(ConflictError, match="taken over"):
                write()
        with pytest.raises(ConflictError, match="sealed with other inputs"):
            registry.runs.seal(run.id, inputs="other", epoch=run.epoch)
    assert work(home, attempt.id, should_stop=lambda: True).verdict is None
    assert work(home, attempt.id).verdict == "counted"


def test_housekeeping_asks_each_family_and_keeps_what_it_needs(home):
    finished = work(home, submit(home).id, (1.0, 2.0))
    attempt = submit(home)
    stops = iter([False] * 3 + [True])
    opened = work(home, attempt.id, should_stop=stops.__next__)
    last = work(home, submit(home, "other").id, (3.0,))
    for place in (home.versions, home.sealed, home.runs, home.root / "tallies"):
        aged(place)
    with Registry.open(home) as registry:
        options = {"keep_days": 30, "families": ALL}
        found = find_garbage(home, registry, **options)
        sealed = {run.id: home.sealed_directory("toy", run.inputs) for run in (finished, opened, last)}
        tallies = {home.root / "tallies" / f"{name}.json" for name in ("count-1", "other-1")}
        assert {one.path for one in found} == {sealed[finished.id], *tallies}
        assert remove_garbage(home, registry, found, **options) == found
        assert find_garbage(home, registry, **options) == ()
        aged(work(home, submit(home).id, (4.0,)) and home.root, 3)
        assert find_garbage(home, registry, keep_days=30, families=FAMILIES) == (), "what others need is not known"
    assert verify(sealed[opened.id]) and get(home, finished.result["content"])["total"] == 3.0
    assert work(home, attempt.id).verdict == "counted"


def test_the_directory_that_a_dead_process_left_of_an_ended_run_is_archived_as_its_family_says(home, monkeypatch):
    attempt = submit(home)
    with monkeypatch.context() as patch:
        patch.setattr(toy_family, "archive", lambda *arguments: None)
        run = work(home, attempt.id)
    later = time.time() + 2 * 86_400
    with Registry.open(home) as registry:
        found = find_garbage(home, registry, keep_days=30, what=["runs"], families=ALL, now=later)
        assert [one.path for one in found] == [directory_of(home, run).path]
        remove_garbage(home, registry, found, keep_days=30, families=ALL, now=later)
    assert {path.name for path in home.archived_run("toy", "count", 1).path.iterdir()} == set(TOY.kept)


def test_a_backup_holds_what_each_family_needs_and_a_home_made_of_it_goes_on(home, tmp_path):
    finished = work(home, submit(home).id, (1.0, 2.0))
    attempt = submit(home)
    stops = iter([False] * 5 + [True])
    work(home, attempt.id, should_stop=stops.__next__)
    backup(home, tmp_path / "backup", ALL)
    restored = Home(tmp_path / "restored")
    restore(tmp_path / "backup", restored, ALL)
    with Registry.open(restored) as registry:
        opened = registry.runs.get(attempt.run)
        assert registry.attempts.get(attempt.id).end == "infrastructure"
        again = registry.attempts.begin(opened.id)
    assert get(restored, finished.result["content"])["total"] == 3.0
    assert verify(restored.sealed_directory("toy", opened.inputs))
    assert not restored.sealed_directory("toy", finished.inputs).exists(), "it can be made again"
    assert len(list((restored.root / "tallies").iterdir())) == 1
    seen = []
    here, there = work(home, attempt.id), work(restored, again.id, on_update=lambda one: seen.append(one.update))
    assert here.result == there.result and seen[0] == 6


def test_a_home_with_runs_of_an_unknown_family_is_neither_backed_up_nor_restored_in_part(home, tmp_path):
    submit(home)
    with pytest.raises(StorageError, match="has runs of toy, and this version .* does not know"):
        backup(home, tmp_path / "backup", FAMILIES)
    assert not list(tmp_path.glob("*backup*"))
    backup(home, tmp_path / "backup", ALL)
    restored = Home(tmp_path / "restored")
    with pytest.raises(StorageError, match="Nothing was copied: use the version that made them"):
        restore(tmp_path / "backup", restored, FAMILIES)
    assert not restored.root.exists()


def test_a_backup_of_damaged_parameters_is_refused_in_the_words_of_their_family(home, tmp_path):
    run = work(home, submit(home).id)
    next(path for path in home.version(run.result["content"]).rglob("*") if path.parent.name == "d").write_bytes(b"")
    with pytest.raises(CorruptError, match=f"the total of run count-1: versions/{run.result['content']} has a file"):
        backup(home, tmp_path / "backup", ALL)
    assert not (tmp_path / "backup").exists()
