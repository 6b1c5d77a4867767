"""A home that is damaged is told of, with the remedy; one that can only be read is read. Neither is changed by it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flowrl_cli.checks.stored import examine_library, examine_registry
from flowrl_cli.views.view import read_progress
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.database import bring_up_to_date, make_engine
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import put

KNOWLEDGE = load_knowledge("corridor")
NAMES = ("dig_a", "goto_bench")
AS_ANOTHER = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Home:
    """A home with two learned skills, whose experts are small."""
    home = Home(tmp_path_factory.mktemp("learned") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLOWRL_REGISTRY_URL", raising=False)
        with Registry.open(home) as registry:
            registry.campaigns.record(parse_campaign(env="corridor", targets=list(NAMES)), KNOWLEDGE.skills)
            for number, name in enumerate(NAMES):
                _learn(home, registry, name, {"w": np.full((50, 4), number, np.float32)})
    return home


def _learn(home: Home, registry: Registry, name: str, params: dict[str, np.ndarray]) -> None:
    identity = registry.skills.get("default", name).identity
    attempt = registry.skill_runs.begin("default", identity)
    expert = registry.library.allocate(identity, observation_size=9, num_actions=18, width=64).global_index
    plan = make_plan(KNOWLEDGE, name)
    registry.skill_runs.seal(attempt.run, plan=plan, remap={expert: 0}, config=SkillConfig(), seeds={expert: None})
    results = [ExpertResult(expert, put(home, params), 100, None)]
    facts = BundleFacts(0.9, 0.8, 512, 0.75)
    registry.skill_runs.commit(
        attempt.run, verdict="learned", run_frames=100, results=results, policy="most_frames", bundle=facts
    )
    registry.attempts.end(attempt.id, "verdict")
    directory = home.archived_run("default", name, 1)
    directory.path.mkdir(parents=True)
    directory.log.write_text(f"how {name} went\n")


@pytest.fixture
def damaged(learned, home) -> Home:
    """The command's own copy of that home, to be damaged."""
    shutil.copytree(learned.root, home)
    return Home(home)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users may enter: pytest closes its own, again and again where several sessions run."""
    with tempfile.TemporaryDirectory(prefix="flowrl-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """All that is there, with sizes and times of change."""
    paths = [root, *root.rglob("*")]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def first_version(home: Home) -> Path:
    with Registry.open(home) as registry:
        head = registry.library.experts()[0].head
    return home.version(head.content)


def a_file(version: Path) -> Path:
    return max((path for path in (version / "tree").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


VERSION_DAMAGE = {
    "all gone": (lambda home, version: shutil.rmtree(home.versions), ("versions is missing", "dig_a", "goto_bench")),
    "a link to nothing": (
        lambda home, version: home.versions.rename(home.root / "old") and home.versions.symlink_to("nowhere"),
        ("versions is missing",),
    ),
    "one gone": (lambda home, version: shutil.rmtree(version), ("expert 0 (dig_a)", "is missing")),
    "a file gone": (lambda home, version: a_file(version).unlink(), ("expert 0 (dig_a)", "has lost its file")),
    "cut short": (lambda home, version: os.truncate(a_file(version), 5), ("expert 0 (dig_a)", "of 5 bytes, not")),
    "no manifest": (
        lambda home, version: (version / "manifest.json").write_text("{"),
        ("expert 0 (dig_a)", "no readable manifest"),
    ),
}


@pytest.mark.parametrize(("damage", "said"), VERSION_DAMAGE.values(), ids=VERSION_DAMAGE)
def test_versions_that_are_not_whole_are_told_by_doctor_status_and_backup(damaged, flowrl_here, damage, said):
    assert [one.state for one in examine_library(damaged)] == ["ok"]
    assert "Damaged" not in flowrl_here("status").stdout
    damage(damaged, first_version(damaged))
    before = snapshot(damaged.root)
    (found,) = examine_library(damaged)
    status, backup = flowrl_here("status"), flowrl_here("backup", "../saved")
    assert (found.state, status.returncode, backup.returncode) == ("wrong", 0, 1)
    for text in said:
        assert text in found.found and text in status.stdout and text in backup.stderr
    assert str(damaged.versions) in backup.stderr or "versions/" in backup.stderr
    for told in (found.mend, status.stdout, backup.stderr):
        assert "from a backup" in told
    assert json.loads(flowrl_here("status", "--json").stdout)["damaged"]
    assert not Path("../saved").exists() and snapshot(damaged.root) == before


def test_a_version_that_was_changed_in_place_is_found_by_its_checksum(damaged, flowrl_here):
    flip(a_file(first_version(damaged)))
    (found,) = examine_library(damaged)
    backup = flowrl_here("backup", "../saved")
    for told in (found.found, backup.stderr):
        assert "expert 0 (dig_a)" in told and "was changed" in told


def _sql(home: Home, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(home.registry)) as connection:
        connection.execute(statement)
        connection.commit()


REGISTRY_DAMAGE = {
    "gone": (lambda home: home.registry.unlink(), ("is missing", "contains versions/", "flowrl restore")),
    "empty": (lambda home: os.truncate(home.registry, 0), ("is empty", "contains versions/", "flowrl restore")),
    "empty, and no versions": (
        lambda home: (os.truncate(home.registry, 0), shutil.rmtree(home.versions)),
        ("is empty", "archive/ (records of runs)"),
    ),
    "no database": (lambda home: home.registry.write_bytes(b"what?" * 900), ("not a database", "flowrl restore")),
    "a directory": (
        lambda home: (home.registry.unlink(), home.registry.mkdir()),
        ("sqlite is not a regular file", "a backup"),
    ),
    "of a newer FlowRL": (
        lambda home: _sql(home, "UPDATE alembic_version SET version_num = '9999'"),
        ("9999", "newer"),
    ),
}


@pytest.mark.parametrize(("damage", "said"), REGISTRY_DAMAGE.values(), ids=REGISTRY_DAMAGE)
def test_a_registry_that_is_lost_is_told_by_every_command_and_no_library_is_begun_over_it(
    damaged, flowrl_here, damage, said
):
    damage(damaged)
    before = snapshot(damaged.root)
    (found,) = examine_registry(damaged)
    assert found.state == "wrong"
    for arguments in (
        ("status",),
        ("experts",),
        ("logs", "dig_a"),
        ("backup", "../saved"),
        ("campaign", "--env", "corridor", "--target", "make_b"),
    ):
        done = flowrl_here(*arguments)
        assert done.returncode == 1 and done.stdout == "", arguments
        for text in said:
            assert text in done.stderr, arguments
            assert text in f"{found.found} {found.mend}"
    assert snapshot(damaged.root) == before and list(examine_library(damaged)) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "registry"),
        (lambda path: _sql(Home(path.parent), "DROP TABLE looks"), "lost its tables looks"),
    ],
)
def test_a_registry_of_which_a_part_is_missing_is_found_by_doctor(damaged, damage, said):
    damage(damaged.registry)
    (found,) = examine_registry(damaged)
    assert found.state == "wrong" and said in found.found and "flowrl restore" in found.mend


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE campaigns SET spec = '{'",
        "UPDATE campaigns SET spec = '[]'",
        "UPDATE skill_runs SET plan = '[1]'",
        "UPDATE runs SET config = '{}{'",
    ],
)
def test_rows_that_cannot_be_read_are_told_with_the_remedy(damaged, flowrl_here, statement):
    _sql(damaged, statement)
    before = snapshot(damaged.root)
    (found,) = examine_registry(damaged)
    assert found.state == "wrong" and "has a row that cannot be read" in found.found and "restore" in found.mend
    for arguments in (("status", "--json"), ("logs", "dig_a"), ("campaign", "--env", "corridor", "--target", "make_b")):
        done = flowrl_here(*arguments)
        assert done.returncode == 1 and done.stdout == "", arguments
        assert "has a row that cannot be read" in done.stderr and "flowrl restore" in done.stderr
    assert snapshot(damaged.root) == before


def test_a_registry_that_is_damaged_anywhere_is_not_taken_for_a_backup(damaged, flowrl_here):
    with contextlib.closing(sqlite3.connect(damaged.registry)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'requests'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with damaged.registry.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
    done = flowrl_here("backup", "../saved")
    assert done.returncode == 1 and "is damaged" in done.stderr and not Path("../saved").exists()
    (found,) = examine_registry(damaged)
    assert found.state == "wrong"


@pytest.mark.parametrize("statement", ["DROP TABLE looks", "UPDATE skill_runs SET plan = '{'"])
def test_a_backup_whose_rows_cannot_be_read_is_refused_before_a_home_is_begun(
    damaged, flowrl_here, tmp_path, statement
):
    assert flowrl_here("backup", str(tmp_path / "saved")).returncode == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "saved" / "registry.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
    shutil.rmtree(damaged.root)
    done = flowrl_here("restore", str(tmp_path / "saved"))
    assert done.returncode == 1 and "nothing was restored, name another backup" in done.stderr
    assert not damaged.root.exists()


RECORD_DAMAGE = {
    "cut short": lambda path: path.write_text("{"),
    "of nothing": lambda path: path.write_text("null"),
    "of something else": lambda path: path.write_text('{"processes": [1], "users": []}'),
    "a directory": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe, which would be waited for": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("damage", RECORD_DAMAGE.values(), ids=RECORD_DAMAGE)
def test_a_record_of_processes_that_cannot_be_read_is_told_and_nothing_is_started(damaged, flowrl_here, damage):
    damage(damaged.embedded)
    status = flowrl_here("status")
    assert status.returncode == 0 and "dig_a" in status.stdout
    up = flowrl_here("up")
    assert up.returncode == 1
    for said in (status.stdout, up.stderr):
        assert "embedded.json, which records what was started" in said and "then remove it" in said
    assert not damaged.prefect.exists()


def test_metrics_that_are_a_pipe_are_not_waited_for(damaged):
    os.mkfifo(damaged.root / "metrics.jsonl")
    assert read_progress(damaged.root / "metrics.jsonl") is None


@pytest.mark.parametrize("name", ["versions", "runs", "archive", "knowledge", "journal", "cache", "prefect"])
def test_what_is_no_directory_where_one_belongs_is_refused_before_anything_begins(home, flowrl_here, refused, name):
    home.mkdir()
    for make in (lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere")):
        make(home / name)
        before = snapshot(home)
        refused(flowrl_here("up"), f"FLOWRL_HOME: {home / name} is ", "not a directory", "Move it away")
        assert snapshot(home) == before
        (home / name).unlink()


def test_a_log_that_is_gone_is_told(damaged, flowrl_here, refused):
    assert flowrl_here("logs", "dig_a").stdout == "how dig_a went\n"
    shutil.rmtree(damaged.archive)
    refused(flowrl_here("logs", "dig_a"), "training.log", "removed")


def left_by_kill(home: Home) -> None:
    """The log and index of a writer that was killed, and something that stands only in the log."""
    with contextlib.closing(sqlite3.connect(home.registry)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE campaigns SET start = 7")
        writer.commit()
        for suffix in ("-wal", "-shm"):
            part = home.registry.with_name(home.registry.name + suffix)
            shutil.copyfile(part, part.with_name(part.name + ".left"))
    for suffix in ("-wal", "-shm"):
        part = home.registry.with_name(home.registry.name + suffix)
        part.with_name(part.name + ".left").rename(part)


def left_without_index(home: Home) -> None:
    left_by_kill(home)
    home.registry.with_name(home.registry.name + "-shm").unlink()


def of_an_older_schema(home: Home) -> None:
    """What there was before the last migration, in an empty registry: versions and runs were never written."""
    for path in (home.versions, home.archive, home.runs):
        shutil.rmtree(path, ignore_errors=True)
    home.registry.unlink()
    engine = make_engine(f"sqlite:///{home.registry}")
    bring_up_to_date(home, engine, head="0002")
    engine.dispose()


def killed_behind_a_link(home: Home) -> None:
    left_by_kill(home)
    (home.root / "db").mkdir()
    for path in home.root.glob("registry.sqlite*"):
        path.rename(home.root / "db" / path.name)
    home.registry.symlink_to(home.root / "db" / home.registry.name)


STATES = {
    "at rest": lambda home: None,
    "behind a link": killed_behind_a_link,
    "killed": left_by_kill,
    "no index": left_without_index,
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_only_asks_writes_nothing(damaged, flowrl_here, state):
    state(damaged)
    before = snapshot(damaged.root)
    assert "dig_a" in flowrl_here("status").stdout
    assert len(json.loads(flowrl_here("experts", "--json").stdout)["experts"]) == 2
    assert flowrl_here("logs", "goto_bench").stdout == "how goto_bench went\n"
    assert flowrl_here("backup", "../saved").returncode == 0
    assert snapshot(damaged.root) == before
    with contextlib.closing(sqlite3.connect(Path("../saved/registry.sqlite"))) as saved:
        (start,) = saved.execute("SELECT start FROM campaigns").fetchone()
    assert start == (1 if state is STATES["at rest"] else 7), "what stands only in the log is read, too"


def test_a_registry_of_an_older_schema_is_read_from_a_copy(damaged, flowrl_here):
    of_an_older_schema(damaged)
    before = snapshot(damaged.root)
    done = flowrl_here("status")
    assert done.returncode == 0 and "No campaign has been started" in done.stdout
    assert flowrl_here("backup", "../saved").returncode == 0
    assert snapshot(damaged.root) == before


CALLS = """
import sys
from flowrl_cli.app import run
for line in sys.stdin.read().splitlines():
    print(f"> {line}", flush=True)
    print("exit", run(line.split()), flush=True)
"""


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_home_that_can_only_be_read_is_read_and_campaigns_are_refused(learned, home, open_directory, state):
    """Really: as another user, and by file modes where the tests are no root."""
    damaged = Home(open_directory / "home")
    shutil.copytree(learned.root, damaged.root)
    state(damaged)
    for path in (damaged.root, *damaged.root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    free = open_directory / "free"
    free.mkdir()
    free.chmod(0o777)
    before = snapshot(damaged.root)
    asked = ["status", "experts", "logs dig_a", "backup saved", "campaign --env corridor --target make_b", "up"]
    done = subprocess.run(
        [*AS_ANOTHER, sys.executable, "-c", CALLS],
        input="\n".join(asked), capture_output=True, text=True, timeout=120, cwd=free, check=False,
        env={**os.environ, "HOME": str(free), "TMPDIR": str(free), "FLOWRL_HOME": str(damaged.root)},
    )  # fmt: skip
    answers = [part.splitlines() for part in done.stdout.split("> ")[1:]]
    codes = {lines[0]: lines[-1] for lines in answers}
    assert codes == {line: f"exit {2 if line.startswith(('campaign', 'up')) else 0}" for line in asked}, done.stderr
    assert done.stderr.count(f"FLOWRL_HOME: {damaged.root} cannot be written") == 2, done.stderr
    assert "`flowrl status`" in done.stderr and (free / "saved" / "registry.sqlite").is_file()
    assert snapshot(damaged.root) == before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda home: home.symlink_to("nowhere"), "link to nowhere"),
        (lambda home: home.symlink_to(home.name), "link to home"),
    ],
)
def test_a_home_that_is_a_link_to_nothing_is_refused(home, flowrl_here, refused, make, said):
    make(home)
    for arguments in (("status",), ("campaign", "--env", "corridor", "--target", "make_b"), ("backup", "../saved")):
        refused(flowrl_here(*arguments), "FLOWRL_HOME", said)


@pytest.mark.skipif(not AS_ANOTHER, reason="takes another user's home")
def test_what_is_closed_to_this_user_is_told(learned, home, open_directory):
    closed = Home(open_directory / "home")
    shutil.copytree(learned.root, closed.root)

    def asked(*commands):
        done = subprocess.run(
            [*AS_ANOTHER, sys.executable, "-c", CALLS],
            input="\n".join(commands), capture_output=True, text=True, timeout=60, check=False, cwd="/",
            env={**os.environ, "FLOWRL_HOME": str(closed.root)},
        )  # fmt: skip
        return done.stdout, done.stderr

    closed.versions.chmod(0o700)
    out, _ = asked("status")
    assert "Damaged" in out and "expert 0 (dig_a)" in out and "cannot be read (Permission denied)" in out
    closed.archive.chmod(0o700)
    closed.embedded.write_text("{}")
    closed.embedded.chmod(0o600)
    out, said = asked("status", "logs dig_a", "backup saved")
    assert out.count("exit 0") == 1 and f"Trouble: {closed.embedded} is not readable by this user" in out
    assert said.count("Permission denied") == 2 and said.lower().count("give yourself access") == 2, said
    closed.registry.chmod(0o600)
    out, said = asked("status", "experts")
    assert out.count("exit 1") == 2 and said.count(f"the registry {closed.registry} is not readable by this user") == 2
    closed.root.chmod(0o700)
    out, said = asked("status", "campaign --env corridor --target make_b")
    assert out.count("exit 2") == 2 and said.count(f"FLOWRL_HOME: {closed.root} cannot be read") == 2
