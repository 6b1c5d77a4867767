"""A home made of a backup goes on where the other was when it was saved."""

import os
import signal
import subprocess
import sys

import pytest
from corridor_runs import begin, copy_home, drive, learn, make_spec

from flowrl_core.errors import CorruptError, InputError
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.train import train
from flowrl_core.stages.upkeep.families import FAMILIES
from flowrl_core.storage.backup import backup, restore
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get

SPEC = make_spec(
    "saved",
    "make_b",
    training={"frames": 12_000, "checkpoint_updates": 4},
    evaluation={"target": 0.05, "min_frames": 2_048, "min_episodes": 16, "episodes": 128, "threshold": 0.2},
)
CONFIG = resolve("make_b", SPEC)


def parameters(home):
    """The hash of every head's parameters, which are there."""
    with Registry.open(home) as registry:
        heads = {record.global_index: record.head.content for record in registry.library.experts() if record.head}
    for content in heads.values():
        get(home, content)
    return heads


@pytest.fixture
def amid_training(basics, tmp_path):
    """A home in which a run was saved in mid-training, and the run."""
    home = copy_home(basics, tmp_path / "home")
    run = begin(home, SPEC, "make_b").run
    prepare(home, run, CONFIG)
    train(home, run, should_stop=iter([False] * 6 + [True]).__next__, on_update=lambda report: None)
    return home, run


@pytest.mark.long
def test_a_restored_home_goes_on_from_the_checkpoint_and_ends_as_the_other_does(amid_training, tmp_path):
    home, run = amid_training
    saved = backup(home, tmp_path / "backup", FAMILIES)
    restored = Home(tmp_path / "restored")
    assert restore(tmp_path / "backup", restored, FAMILIES).rows == saved.rows > 0
    assert parameters(restored) == parameters(home) != {}
    (restored.root / "cache").symlink_to(home.cache)
    with Registry.open(home) as before, Registry.open(restored) as after:
        assert after.uuid != before.uuid, "or a server would answer with the other's runs"
        assert len(before.attempts.outstanding("saved")) == 1 and after.attempts.outstanding("saved") == []
        identity = after.skills.get("saved", "make_b").identity
        after.campaigns.record(SPEC, {name: entry.skill for name, entry in after.skills.of("saved").items()})
        after.campaigns.begin_start(SPEC)
        assert after.skill_runs.begin("saved", identity).run == run, "the open run is taken up"
    assert drive(restored, run, CONFIG).success == drive(home, run, CONFIG).success
    assert parameters(restored) == parameters(home)


def test_new_rows_do_not_collide_with_restored_ones(amid_training, tmp_path):
    home, run = amid_training
    backup(home, tmp_path / "backup", FAMILIES)
    restored = Home(tmp_path / "restored")
    restore(tmp_path / "backup", restored, FAMILIES)
    (restored.root / "cache").symlink_to(home.cache)
    again, outcome = learn(restored, make_spec("later", "make_c", evaluation={"threshold": 0.2}), "make_c")
    assert again > run and outcome.verdict in ("learned", "failed")


def test_a_backup_is_refused_where_something_is_and_leaves_nothing_when_it_fails(amid_training, tmp_path):
    home, _ = amid_training
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists"):
        backup(home, tmp_path / "there", FAMILIES)
    with pytest.raises(InputError, match="outside"):
        backup(home, home.root / "backup", FAMILIES)
    with pytest.raises(InputError, match="target: .* contains \\?"):
        backup(home, tmp_path / "backup?", FAMILIES)
    damaged = next(path for path in home.versions.rglob("*") if path.is_file() and path.name != "manifest.json")
    damaged.write_bytes(b"")
    with pytest.raises(
        CorruptError, match="expert . \\(.*\\): versions/.* of 0 bytes, not .* restore .* from a backup"
    ):
        backup(home, tmp_path / "backup", FAMILIES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "there"]


def test_a_restoration_is_refused_into_a_home_that_holds_something(amid_training, tmp_path):
    home, _ = amid_training
    backup(home, tmp_path / "backup", FAMILIES)
    with pytest.raises(InputError, match="contains versions"):
        restore(tmp_path / "backup", home, FAMILIES)
    with pytest.raises(InputError, match="is not a backup"):
        restore(tmp_path, Home(tmp_path / "new"), FAMILIES)
    assert not (tmp_path / "new").exists()


RESTORE = (
    "import sys; from pathlib import Path; from flowrl_core.storage.backup import restore; "
    "from flowrl_core.stages.upkeep.families import FAMILIES; from flowrl_core.storage.layout import Home; "
    "restore(Path(sys.argv[1]), Home(Path(sys.argv[2])), FAMILIES)"
)


@pytest.mark.parametrize(
    ("point", "is_whole"),
    [
        ("restored_files", False),
        ("restored_directory", False),
        ("restored_directory:2", False),
        ("restored_registry", True),
    ],
)
def test_a_restoration_that_was_killed_is_whole_or_can_be_repeated(basics, tmp_path, point, is_whole):
    home = basics
    backup(home, tmp_path / "backup", FAMILIES)
    target = Home(tmp_path / "restored")
    command = [sys.executable, "-c", RESTORE, str(tmp_path / "backup"), str(target.root)]
    killed = subprocess.run(command, env={**os.environ, "FLOWRL_CRASH_AT": point}, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    if is_whole:
        with pytest.raises(InputError, match="contains versions|contains registry"):
            restore(tmp_path / "backup", target, FAMILIES)
    else:
        assert not target.registry.exists(), "it is no home"
        restore(tmp_path / "backup", target, FAMILIES)
        assert not (target.root / "restoring").exists()
    assert parameters(target) == parameters(home) != {}


def test_a_restoration_that_is_interrupted_leaves_nothing(basics, tmp_path, monkeypatch):
    home = basics
    backup(home, tmp_path / "backup", FAMILIES)

    def interrupted(*_):
        raise KeyboardInterrupt

    for there in (False, True):
        target = Home(tmp_path / "restored")
        if there:
            target.cache.mkdir(parents=True)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("flowrl_core.storage.backup._load_rows", interrupted)
            restore(tmp_path / "backup", target, FAMILIES)
        assert [path.name for path in target.root.glob("*")] == (["cache"] if there else [])
        assert target.root.exists() is there
    restore(tmp_path / "backup", target, FAMILIES)
    assert parameters(target) == parameters(home) != {}


def test_a_restoration_into_a_database_that_was_killed_can_be_repeated(
    basics, tmp_path, postgres_database, monkeypatch
):
    backup(basics, tmp_path / "backup", FAMILIES)
    expected = parameters(basics)
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", postgres_database)
    target = Home(tmp_path / "restored")
    command = [sys.executable, "-c", RESTORE, str(tmp_path / "backup"), str(target.root)]
    killed = subprocess.run(
        command, env={**os.environ, "FLOWRL_CRASH_AT": "restored_directory"}, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    restore(tmp_path / "backup", target, FAMILIES)
    assert parameters(target) == expected != {}
    with pytest.raises(InputError, match="contains versions"):
        restore(tmp_path / "backup", target, FAMILIES)
    with pytest.raises(InputError, match="the database already contains a registry"):
        restore(tmp_path / "backup", Home(tmp_path / "other"), FAMILIES)
    assert parameters(target) == expected
