import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running

from flowrl_cli.server import embedded
from flowrl_cli.server.configured import configured, wait_healthy
from flowrl_cli.server.processes import MARK_VARIABLE, Started, find, marked, spawn, stop, this_process
from flowrl_cli.server.record import Record
from flowrl_core.errors import ServiceError
from flowrl_core.storage.layout import Home
from tasks.orchestration.runs.tags import FLOWRL, worker_name

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def nothing_configured(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)


def sleeper(tmp_path, mark, code="import time; time.sleep(60)"):
    environment = {**os.environ, MARK_VARIABLE: mark}
    return spawn(
        "sleeper", [sys.executable, "-c", code], environment=environment, directory=tmp_path, log=tmp_path / "log"
    )


def test_a_live_embedded_server_is_used_again(server, nothing_configured):
    before = Record.load(server.home)
    again = embedded.up(server.home)
    assert again.url == server.url and again.is_embedded
    assert Record.load(server.home).processes == before.processes
    assert embedded.leave(server.home) is False, "it was started to be kept"
    assert embedded.status(server.home) == again


def test_a_page_of_somebody_else_may_not_read_what_the_server_says(server):
    def allowed(origin):
        request = urllib.request.Request(f"{server.url}/health", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers.get("Access-Control-Allow-Origin")

    own = server.url.removesuffix("/api")
    assert allowed(own) == own
    assert allowed("http://elsewhere.example") is None


def test_dead_workers_are_started_again(server):
    workers = Record.load(server.home).alive("workers")
    workers.send_signal(signal.SIGKILL)
    psutil.wait_procs([workers], timeout=10)
    assert embedded.heal(server.home)
    assert Record.load(server.home).alive("workers").pid != workers.pid
    assert not embedded.heal(server.home), "all lives"


def test_each_start_declares_what_is_lost_whoever_has_started_the_workers(server, nothing_configured):
    """Server and workers live, since a start before it was cut short: the runs of the workers before are lost."""

    def of_the_workers():
        async def make():
            async with get_client() as client:
                deployment = await client.read_deployment_by_name("train-skill/gpu")
                nobodys = {"campaign": "none", "skill": "none", "attempt": 1, "run": 1}
                run = await client.create_flow_run_from_deployment(
                    deployment.id, parameters=nobodys, state=Running(), tags=[FLOWRL]
                )
                name = f"{worker_name('gpu').rpartition(':')[0]}:{Record.load(server.home).alive('workers').pid}"
                await client.update_flow_run_labels(run.id, {"prefect.worker.name": name})
                await client.set_flow_run_state(run.id, Running(), force=True)
                return run.id

        return asyncio.run(make())

    def state(run):
        async def read():
            async with get_client() as client:
                return (await client.read_flow_run(run)).state

        return asyncio.run(read())

    run, before = of_the_workers(), Record.load(server.home).alive("workers")
    embedded.up(server.home)
    assert state(run).is_running(), "its worker lives: Prefect learns its end"
    before.kill()
    psutil.wait_procs([before], timeout=10)
    code = "import sys; from flowrl_cli.server import embedded; from flowrl_core.storage.layout import Home; "
    cut = subprocess.Popen([sys.executable, "-c", f"{code}embedded.up(Home(sys.argv[1]))", str(server.home.root)])
    while not Record.load(server.home).alive("workers"):
        time.sleep(0.01)
    cut.kill()
    cut.wait()
    assert state(run).is_running()
    embedded.up(server.home)
    assert state(run).is_crashed() and state(run).message == "its process is gone"


def test_what_was_started_is_found_by_its_mark_and_by_no_other(tmp_path):
    started, other = sleeper(tmp_path, "one"), sleeper(tmp_path, "other")
    try:
        assert [process.pid for process in marked("one")] == [started.pid]
        assert find(started) is not None
        assert find(Started("sleeper", started.pid, started.created - 100)) is None, "another process of that number"
        assert find(Started("sleeper", started.pid, started.created - 3600), "one"), "the clock was set in between"
    finally:
        stop(marked("one") + marked("other"))
    assert find(started) is None and find(other) is None


def test_who_ignores_a_request_to_end_is_killed(tmp_path):
    started = sleeper(tmp_path, "stubborn", STUBBORN)
    while "up" not in (tmp_path / "log").read_text():
        pass
    stop([find(started)], grace=0.3)
    assert find(started) is None


def test_the_last_user_who_leaves_stops_what_was_started(tmp_path, server):
    home = Home(tmp_path / "home")
    started = sleeper(tmp_path, "shared")
    other = sleeper(tmp_path, "a second command")
    record = Record("shared", 1, processes=(started,)).joined(this_process(), keep=False).joined(other, keep=False)
    record.save(home)
    assert embedded.leave(home) is False and find(started)
    stop([find(other)])
    record.joined(this_process(), keep=False).save(home)
    assert embedded.leave(home) is True
    assert find(started) is None and not home.embedded.exists()


def test_down_where_nothing_was_started_does_nothing(tmp_path):
    home = Home(tmp_path / "home")
    assert embedded.down(home) is False
    assert not home.root.exists()


def test_a_configured_server_that_is_silent_is_an_error(nothing_configured, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
    with pytest.raises(ServiceError, match="did not answer"):
        wait_healthy(url, seconds=0.5)
    with pytest.raises(ServiceError, match="not a URL"):
        wait_healthy("nonsense", seconds=0.5)


def test_a_server_that_is_still_starting_is_waited_for(server):
    class Answer(BaseHTTPRequestHandler):
        answers = iter([503, 503, 200])

        def do_GET(self):
            self.send_response(next(self.answers))
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as starting:
        threading.Thread(target=starting.serve_forever, daemon=True).start()
        wait_healthy(f"http://127.0.0.1:{starting.server_port}/api", seconds=5.0)
        starting.shutdown()


PLACES = {
    "PREFECT_API_URL": "unset PREFECT_API_URL",
    ".env": "remove PREFECT_API_URL from {}/.env",
    "prefect.toml": "remove url from [api] in {}/prefect.toml",
    "pyproject.toml": "remove url from [tool.prefect.api] in {}/pyproject.toml",
    "nowhere/profiles.toml": "`prefect --profile mine config unset PREFECT_API_URL`",
}
FILES = {
    ".env": "PREFECT_API_URL={}\n",
    "prefect.toml": '[api]\nurl = "{}"\n',
    "pyproject.toml": '[tool.prefect.api]\nurl = "{}"\n',
    "nowhere/profiles.toml": 'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{}"\n',
}


def test_a_server_is_configured_where_prefect_looks_first_and_that_place_is_named(nothing_configured, tmp_path):
    """All places name one, and then one after the other no more."""
    (tmp_path / "nowhere").mkdir()
    for place, content in FILES.items():
        (tmp_path / place).write_text(content.format(f"http://{Path(place).suffix or place}:4200/api/"))
    code = """
        import os, pathlib
        from flowrl_cli.server.configured import configured
        while found := configured():
            print(found.url, found.where, found.forget, sep="|")
            if not os.environ.pop("PREFECT_API_URL", None):
                next(place for place in map(pathlib.Path, PLACES) if place.exists()).unlink()
    """
    code = textwrap.dedent(code).replace("PLACES", repr(list(FILES)))
    environment = {**os.environ, "PREFECT_API_URL": "http://variable:4200/api/"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = [line.split("|") for line in done.stdout.splitlines()]
    hosts = ["variable", *(Path(place).suffix or place for place in FILES)]
    assert [url for url, _, _ in found] == [f"http://{host}:4200/api" for host in hosts]
    assert [forget for _, _, forget in found] == [mend.format(tmp_path) for mend in PLACES.values()]
    assert all(place in where for place, (_, where, _) in zip(PLACES, found, strict=True))


def test_nothing_is_configured_by_default(nothing_configured):
    assert configured() is None
