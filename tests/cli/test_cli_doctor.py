"""`flowrl doctor`: each thing that can be wrong is told with what mends it, and nothing is changed."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time

import psutil
import pytest

from flowrl_cli.checks.services import clock_of, examine_server
from flowrl_cli.checks.stored import examine_registry
from flowrl_cli.commands.doctor import locks_of
from flowrl_cli.server.care import Attendance
from flowrl_cli.server.connection import connected
from flowrl_cli.server.record import Record
from flowrl_core.errors import ServiceError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.schema import HEAD
from tasks.orchestration.server.inventory import missing_pools


def registry_of(home: Home):
    (finding,) = examine_registry(home)
    return finding


def test_a_registry_is_examined_without_being_made_or_migrated(tmp_path):
    home = Home(tmp_path / "home")
    assert registry_of(home).state == "ok" and not home.root.exists()
    Registry.open(home).close()
    assert registry_of(home).found.endswith(f"(schema {HEAD})")
    for schema, mend in (("0000", "the next flowrl campaign migrates it"), ("9999", "newer FlowRL")):
        with sqlite3.connect(home.registry) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        before = home.registry.read_bytes()
        found = registry_of(home)
        assert found.state == "wrong" and schema in found.found and mend in found.mend
        assert home.registry.read_bytes() == before
    home.registry.write_bytes(b"this is no database" * 100)
    assert "flowrl restore" in registry_of(home).mend


@pytest.mark.parametrize(
    ("url", "said", "mend"),
    [
        ("postgresql+nodriver://there/x", "nodriver", "unset FLOWRL_REGISTRY_URL"),
        ("postgresql+psycopg2://there/x", "psycopg2", 'pip install "psycopg[binary]"'),
        ("nonsense", "is not a database URL", "FLOWRL_REGISTRY_URL"),
        ("postgresql+psycopg://me:se-cret@127.0.0.1:1/x", "", "FLOWRL_REGISTRY_URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(tmp_path, monkeypatch, url, said, mend):
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", url)
    found = registry_of(Home(tmp_path))
    assert found.state == "wrong" and said in found.found and mend in found.mend
    assert "se-cret" not in found.found


def test_a_server_that_does_not_answer_is_told(home, monkeypatch):
    monkeypatch.setattr("flowrl_cli.checks.services._ANSWER_S", 0.3)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    (found,) = examine_server(Home(home))
    assert found.state == "wrong" and "did not answer" in found.found and "unset PREFECT_API_URL" in found.mend
    monkeypatch.delenv("PREFECT_API_URL")
    Record("mark", port=1).save(Home(home))
    (found,) = examine_server(Home(home))
    assert found.state == "wrong" and found.mend == "flowrl up"
    monkeypatch.setenv("FLOWRL_MACHINE", "another")
    (found,) = examine_server(Home(home))
    assert found.state == "wrong" and "--worker-only" in found.mend


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "PREFECT_API_SSL_CERT_FILE"])
def test_certificates_that_no_client_can_read_are_told_before_there_is_a_server(home, monkeypatch, variable):
    monkeypatch.setenv(variable, "/nowhere.pem")
    found = next(examine_server(Home(home)))
    assert found.state == "wrong" and variable in found.found and variable in found.mend


def test_pools_that_a_server_does_not_have_are_told(server, monkeypatch):
    """As of a server of a person's own, before the first `flowrl up`."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(server.home.prefect))
    monkeypatch.setattr("tasks.orchestration.server.inventory.POOLS", ("gpu", "nobody's"))
    found = {one.what: one for one in examine_server(server.home)}["pool nobody's"]
    assert (found.state, found.found, found.mend) == ("wrong", "is not on the server", "flowrl up")
    with connected(Record.load(server.home).server):
        assert missing_pools(["gpu", "nobody's"]) == ["nobody's"]


def test_a_pool_without_a_worker_is_told(server, monkeypatch):
    from prefect.client.orchestration import get_client

    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(server.home.prefect))
    workers = Record.load(server.home).alive("workers")
    record = Record.load(server.home)

    def pools():
        return {one.what: one for one in examine_server(server.home) if one.what.startswith("pool ")}

    async def forget():
        async with get_client() as client:
            for worker in await client.read_workers_for_work_pool("gpu"):
                await client._client.delete(f"/work_pools/gpu/workers/{worker.name}")

    workers.suspend()  # or it says again that it is there
    try:
        with connected(record.server):
            asyncio.run(forget())
        found = pools()["pool gpu"]
        assert (found.state, found.found, found.mend) == ("wrong", "no worker is online", "flowrl up")
        said = []
        attendance = Attendance(record.server, said.append)
        with connected(record.server):
            attendance.look()
            assert said == [], "one may be starting just now"
            monkeypatch.setattr("flowrl_cli.server.care._TELL_S", -1.0)
            for _ in range(2):
                attendance.look()
            assert len(said) == 1 and "pool gpu" in said[0] and "nothing can be executed" in said[0]
            monkeypatch.setattr("flowrl_cli.server.care._ALONE_S", -1.0)
            with pytest.raises(ServiceError, match=r"no worker .* pool gpu.* the same command attaches"):
                attendance.look()
    finally:
        workers.resume()
    assert psutil.pid_exists(workers.pid)


@pytest.mark.parametrize("header", ["Date", "date", "x-other"])
@pytest.mark.parametrize(("ahead", "state"), [(0, "ok"), (-3600, "wrong"), (3600, "wrong")])
def test_a_clock_that_is_not_the_servers_is_told(ahead, state, header):
    """Uvicorn, which serves Prefect, writes the header's name in lower case."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(200)
            self.send_header(header, formatdate(time() + ahead, usegmt=True))
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        found = clock_of(f"http://127.0.0.1:{other.server_port}/api")
        other.shutdown()
    if header == "x-other":
        assert (found.state, found.found) == ("unknown", "not compared: the server does not report its time")
        return
    assert found.state == state
    assert ("behind" in found.found) == (ahead > 0)
    assert state == "ok" or "timedatectl" in found.mend


def test_locks_are_tried_where_the_home_is(tmp_path):
    assert locks_of(tmp_path).state == "ok"
    assert list(tmp_path.iterdir()) == []
    assert "FLOWRL_HOME" in locks_of(Path("/proc")).mend


@pytest.mark.parametrize(
    ("variable", "value"), [("FLOWRL_SLOTS", "many"), ("FLOWRL_SLOTS_DIR", "here"), ("FLOWRL_SLOTS_PER_GPU", "0")]
)
def test_slots_that_cannot_be_counted_are_told(home, flowrl_here, variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    done = flowrl_here("doctor")
    assert done.returncode == 1
    assert f"slots: correct or unset {variable}" in done.stdout
    assert not home.exists()


def test_a_home_that_cannot_be_is_told(home, flowrl_here):
    home.write_text("mine")
    done = flowrl_here("doctor")
    assert done.returncode == 1 and "home: export FLOWRL_HOME" in done.stdout


def test_a_working_directory_that_is_gone_is_told_before_anything_is_begun(
    home, flowrl_here, refused, tmp_path, monkeypatch
):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = ("working directory: ", "was deleted", "`cd` to an existing directory")
    refused(flowrl_here("campaign", "--env", "corridor", "--target", "dig_a"), *said)
    refused(flowrl_here("up"), *said)
    refused(flowrl_here("up", "--worker-only", "--server", "http://127.0.0.1:9/api"), *said)
    assert "working directory: `cd` to an existing directory" in flowrl_here("doctor").stdout
    assert flowrl_here("status").returncode == 0
    module = [sys.executable, "-m", "flowrl_cli", "status"]
    assert subprocess.run(module, capture_output=True, check=False, timeout=60).returncode == 0
    assert not home.exists()
