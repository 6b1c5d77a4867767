"""What dies is told in its own words, and started again a bounded number of times; accounts of all kinds can use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flowrl_cli.checks.services import examine_server
from flowrl_cli.process.account import furnish
from flowrl_cli.server import embedded
from flowrl_cli.server.care import Healing
from flowrl_cli.server.launch import WORKERS, launch
from flowrl_cli.server.output import begin_log, last_words
from flowrl_cli.server.processes import Started
from flowrl_cli.server.record import Record
from flowrl_cli.server.temporary import remove_temporary, with_temporary
from flowrl_cli.server.workers import await_ready
from flowrl_core.errors import ServiceError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive

DYING = "import sys; from tasks.orchestration.server import workers; workers._PAUSE_S = 0.01; workers.main(['gpu'])"
NOBODYS = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
"""A real account of the kernel's with a number that no file names."""
TREE = "  | ExceptionGroup: errors (1 sub-exception)\n    | OSError: [Errno 5] eaten\n    +----\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("up\nKilled\n", "Killed"),
        ("00:53:10.1 | INFO    | prefect.flow_runs.worker - Flow run 'dig_a' submitted to infrastructure\n", ""),
        ("Traceback:\n  File \"x\", line 1\n    boom()\nPermissionError: [Errno 13] no: 'x'\n", "PermissionError: "),
        ("sqlalchemy.exc.OperationalError: (x) disk I/O error\nERROR: startup failed. Exiting.\n", "sqlalchemy.exc.Op"),
        (TREE, "OSError: [Errno 5] eaten"),
        ("ValueError: " + "x" * 5_000, "ValueError: xxx"),
        ("old\n" * 100_000 + "KeyError: 'new'\n", "KeyError: 'new'"),
    ],
)
def test_the_last_words_of_a_log_are_its_last_error(tmp_path, log, words):
    (tmp_path / "log").write_text(log)
    found = last_words(tmp_path / "log")
    assert found.startswith(words) and len(found) < 400 and bool(found) == bool(words)


def test_each_start_has_a_log_and_a_few_are_kept(tmp_path):
    log = tmp_path / "workers.log"
    for number in range(9):
        begin_log(log)
        assert not log.exists() or not log.stat().st_size
        log.write_text(f"start {number}")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "workers.log": "start 8",
        **{f"workers.log.{number}": f"start {8 - number}" for number in (1, 2, 3)},
    }


def test_temporary_files_have_a_directory_that_is_nobody_elses(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    record = with_temporary(home, Record("mark"))
    made = Path(record.temporary)
    assert Record.load(home) == record == with_temporary(home, record)
    assert made.parent == tmp_path and made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)  # as one that somebody else has made in the meantime
    other = with_temporary(home, record)
    assert other.temporary != record.temporary
    shutil.rmtree(other.temporary)
    Path(other.temporary).symlink_to(tmp_path)
    third = with_temporary(home, other)
    remove_temporary(other)
    assert third.temporary != other.temporary and tmp_path.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert Path(with_temporary(home, Record("mark")).temporary).parent == home.root
    remove_temporary(third)
    assert not Path(third.temporary).exists()


def test_workers_that_die_at_once_end_with_the_reason(server, tmp_path):
    (tmp_path / "runner_storage").write_text("somebody else's")
    done = subprocess.run(
        [sys.executable, "-P", "-c", DYING],
        env={**os.environ, "PREFECT_API_URL": server.url, "TMPDIR": str(tmp_path)},
        stdout=(tmp_path / "log").open("wb"),
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    words = last_words(tmp_path / "log")
    assert done.returncode == 1
    assert "pool gpu ended 5 times" in words and "runner_storage" in words


def test_who_dies_again_and_again_is_started_again_a_few_times_and_all_say_why(server, monkeypatch, capsys):
    def dying(home, record, *, environment, directory):
        record = launch(home, record, WORKERS, ["no_such_module"], environment=environment, directory=directory)
        psutil.wait_procs([psutil.Process(one.pid) for one in record.processes if one.name == WORKERS], timeout=30)
        return record

    said: list[str] = []
    healing = Healing(server.home, said.append)
    healing.look()
    assert said == [], "all lives"
    record = Record.load(server.home)
    record.alive(WORKERS).kill()
    psutil.wait_procs([psutil.Process(one.pid) for one in record.processes if one.name == WORKERS], timeout=30)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "launch_workers", dying)
            for _ in range(3):
                healing.look()
            with pytest.raises(ServiceError, match=r"No module named no_such_module.* 4th time in a row.*again"):
                healing.look()
        assert [("No module named no_such_module" in text) for text in said] == [False, True, True]
        with pytest.raises(ServiceError, match=r"have died: .*No module named no_such_module"):
            await_ready(server.home, Record.load(server.home))
        monkeypatch.setenv("FLOWRL_HOME", str(server.home.root))
        monkeypatch.setenv("PREFECT_HOME", str(server.home.prefect))
        found = {one.what: one.found for one in examine_server(server.home)}
        assert "online" in found["pool gpu"]
    finally:
        assert embedded.heal(server.home)


def test_what_somebody_stops_has_not_died(tmp_path):
    home = Home(tmp_path)
    Record("mark", port=1).save(home)
    said: list[str] = []
    healing = Healing(home, said.append)
    with exclusive(home.root / "embedded.lock", what="the embedded Prefect of this home", wait=False):
        healing.look()
    assert said == []
    assert embedded.down(home)
    with pytest.raises(ServiceError, match="stopped by `flowrl down`"):
        healing.look()


def test_status_and_doctor_quote_what_died(home, flowrl_here):
    place = Home(home)
    gone = tuple(Started(name, 2**22 + 1, 0.0) for name in ("server", "workers"))
    replace(Record("mark", port=1), processes=gone).save(place)
    place.prefect.mkdir()
    for name in ("server", "workers"):
        (place.prefect / f"{name}.log").write_text(f"PermissionError: [Errno 13] of the {name}\n")
    (found,) = examine_server(place)
    assert found.state == "wrong" and "PermissionError: [Errno 13] of the server" in found.found
    said = flowrl_here("status").stdout
    assert "Trouble: the workers died: PermissionError: [Errno 13] of the workers" in said and "flowrl up" in said
    told = json.loads(flowrl_here("status", "--json").stdout)["troubles"]
    assert [text.split(":")[0] for text in told] == ["the server died", "the workers died"]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ({}, {"HOME": "{own}", "PREFECT_HOME": "{own}"}),
        ({"HOME": "{shut}"}, {"HOME": "{own}", "PREFECT_HOME": "{own}"}),
        ({"HOME": "{read}"}, {"HOME": "{read}", "PREFECT_HOME": "{own}"}),
        ({"HOME": "/nonexistent", "PREFECT_HOME": "{mine}"}, {"HOME": "{own}", "PREFECT_HOME": "{mine}"}),
    ],
)
def test_an_account_without_a_home_directory_can_use_it(home, tmp_path, variable, expected):
    if os.getuid() or subprocess.run([*NOBODYS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives nobody a number of their own")
    for name, mode in (("shut", 0o700), ("read", 0o755), ("mine", 0o755)):
        (tmp_path / name).mkdir(mode=mode)
        if name != "mine":
            os.chown(tmp_path / name, 12345, 12345)  # not the one that the kernel takes our account for
    names = {"own": home / "prefect", **{name: tmp_path / name for name in ("shut", "read", "mine")}}
    code = "import os; from flowrl_cli.app import run; assert run(['status']) == 0; import prefect; print(*("
    code += "f'{name}={os.environ[name]}' for name in ('HOME', 'PREFECT_HOME') if name in os.environ), sep='\\n')"
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "PREFECT_HOME")}
    given = {name: value.format(**names) for name, value in variable.items()}
    done = subprocess.run(
        [*NOBODYS, sys.executable, "-c", code], env={**kept, **given}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [f"{name}={value.format(**names)}" for name, value in expected.items()]


@pytest.mark.parametrize("account", ["/nonexistent", "."])
def test_a_home_below_one_that_cannot_be_used_is_refused(home, flowrl_here, refused, monkeypatch, account):
    monkeypatch.setenv("HOME", account)
    monkeypatch.setenv("FLOWRL_HOME", "~/flowrl")
    refused(flowrl_here("status"), "FLOWRL_HOME", "absolute path")


def test_what_is_right_is_left_alone(tmp_path):
    environment = {"HOME": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        furnish(environment)
    assert environment == {"HOME": str(tmp_path)}
