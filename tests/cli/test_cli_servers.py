"""`flowrl up` and `flowrl down` as a person types them: what is refused, and a server that asks for a password."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from others_settings import FILES, HOSTILE, PROFILES, PYTHON

sys.path.append(str(Path(__file__).parents[1] / "core"))
sys.path.append(str(Path(__file__).parents[1] / "flows"))

import corridor_runs
import flow_runs

from flowrl_cli.checks.services import examine_server
from flowrl_cli.server.configured import check_server, wait_healthy
from flowrl_cli.server.connection import connected
from flowrl_cli.server.processes import MARK_VARIABLE, marked
from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home
from tasks.orchestration.runs.submission import find_runs

FLOWRL = str(Path(os.sys.executable).with_name("flowrl"))
PASSWORD = "ann:a se:cret"


@contextlib.contextmanager
def answering(status: int, body: str, **headers: str) -> Iterator[str]:
    """A server that gives one answer to everything; its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path.endswith("/version") else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), ("host", "export PREFECT_SERVER_API_AUTH_STRING=", "PREFECT_API_AUTH_STRING")),
        (("--port", "70000"), ("--port", "65535")),
        (("--server", "http://there:4200/api"), ("server", "--worker-only")),
        (("--pool", "gpu"), ("pool", "--worker-only")),
        (("--worker-only",), ("server", "--server http://")),
        (("--worker-only", "--server", "http://127.0.0.1:1/api", "--port", "4200"), ("port", "--worker-only")),
        (("--worker-only", "--server", "http://127.0.0.1:1/api", "--pool", "gpus"), ("pool", "gpu")),
    ],
)
def test_what_cannot_be_started_is_refused_and_leaves_nothing(home, flowrl_here, refused, arguments, said):
    refused(flowrl_here("up", *arguments), *said)
    assert not home.exists()


def test_an_address_that_cannot_be_had_is_refused(home, flowrl_here, refused, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(flowrl_here("up", "--port", str(taken.getsockname()[1])), "port", "nothing can listen")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", PASSWORD)
    refused(flowrl_here("up", "--host", "192.0.2.77"), "host", "not an address of this machine")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "onlyauser")
    refused(flowrl_here("up"), "PREFECT_SERVER_API_AUTH_STRING: is not USER:PASSWORD")
    monkeypatch.setenv("PREFECT_API_URL", "http://there:4200/api")
    refused(flowrl_here("up", "--port", "4200"), "port", "configured")
    assert not home.exists()


def test_a_setting_of_prefect_that_it_cannot_read_is_refused_before_anything_is_written(home, flowrl, refused):
    done = flowrl("up", PREFECT_CLIENT_MAX_RETRIES="several")
    refused(done, "PREFECT_CLIENT_MAX_RETRIES: 'several'", "integer", "or unset PREFECT_CLIENT_MAX_RETRIES")
    assert not home.exists()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "PREFECT_API_SSL_CERT_FILE"])
def test_certificates_that_cannot_be_read_are_refused_before_anything_is_written(
    home, flowrl_here, refused, monkeypatch, variable
):
    monkeypatch.setenv(variable, "/nowhere.pem")
    refused(flowrl_here("up"), variable, "/nowhere.pem", "certificate")
    assert not home.exists()


@pytest.mark.parametrize("command", [("up",), ("campaign", "--env", "corridor", "--target", "make_b")])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    home, flowrl_here, refused, monkeypatch, command
):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    refused(flowrl_here(*command), "JAX_PLATFORMS", "GPU")
    assert not home.exists()


def test_workers_join_only_a_prefect_server_that_answers_and_lets_them_in(home, flowrl_here, monkeypatch):
    def join(url: str) -> str:
        done = flowrl_here("up", "--worker-only", "--server", url)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        return done.stderr

    monkeypatch.setattr("flowrl_cli.server.workers._ANSWER_S", 0.5)
    assert "did not answer" in join("http://127.0.0.1:1/api")
    with answering(404, "no such page") as url:
        assert f"{url} is not the API of a Prefect server" in join(url)
    with answering(200, "<html>") as url:
        assert "is not the API" in join(url)
    with answering(200, '"2.20.1"') as url:
        assert "is of version 2.20.1: use a server of Prefect 3" in join(url)
    with answering(401, "{}") as url:
        assert "requires a password: export PREFECT_API_AUTH_STRING" in join(url)
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)
        assert "rejected these credentials" in join(url)
        assert PASSWORD not in join(url)
    assert not home.exists()


@pytest.mark.parametrize("command", [("up",), ("campaign", "--env", "corridor", "--target", "make_b")])
def test_a_configured_server_that_cannot_be_used_is_told_and_nothing_is_written(
    home, flowrl_here, monkeypatch, command
):
    for module in ("server.embedded", "session"):
        monkeypatch.setattr(f"flowrl_cli.{module}.wait_healthy", functools.partial(wait_healthy, seconds=0.3))
    with answering(401, "{}") as url:
        for configured, said in (("http://127.0.0.1:1/api", "did not answer"), (url, "requires a password")):
            monkeypatch.setenv("PREFECT_API_URL", configured)
            done = flowrl_here(*command)
            assert done.returncode == 1 and said in done.stderr
    assert not home.exists()


def test_up_with_a_configured_server_starts_workers_for_it_and_down_stops_them(server, home, flowrl_here, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    before = Record.load(server.home)
    said = flowrl_here("up").stdout.splitlines()
    assert said[:2] == [f"UI: {before.server.ui}", "server: configured, so FlowRL neither starts nor stops it"]
    record = Record.load_workers(Home(home))
    process = record.alive("workers")
    assert f"workers: started, process {process.pid}" in said
    ready = next(line for line in said if line.startswith("ready: "))
    assert (
        f"control@{socket.gethostname()}:{process.pid}" in ready
        and f"gpu@{socket.gethostname()}:{process.pid}" in ready
    )
    assert flowrl_here("down").stdout == f"workers: stopped (of {server.url})\n"
    assert record.alive("workers") is None and before.alive("workers") and before.alive("server")
    assert not Home(home).embedded.exists()


class Guarded:
    """A home whose server asks for a password and can be reached by other machines, started by the real command.

    Who starts it has set what they can of Prefect, in variables and files, and of Python.
    """

    def __init__(self, directory: Path, compiled: Path) -> None:
        self.directory = directory
        self.home = Home(directory / "home")
        self.home.root.mkdir()
        self.home.cache.symlink_to(compiled)
        (directory / "nowhere").mkdir()
        for name, text in {**FILES, "nowhere/profiles.toml": PROFILES}.items():
            (directory / name).write_text(text)
        self.started = self.call("up", "--host", "0.0.0.0")

    def call(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own, by which the home is named relative to its working directory."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWRL_", "PREFECT_"))}
        own = {
            "FLOWRL_HOME": "home",
            "FLOWRL_MACHINE": "first",
            "FLOWRL_SLOTS_DIR": str(self.directory / "slots"),
            "PREFECT_HOME": str(self.directory / "nowhere"),
            "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
            **HOSTILE,
            **PYTHON,
            "PREFECT_LOGGING_LEVEL": "ERROR",  # of what Prefect itself says
        }
        return subprocess.run(
            [FLOWRL, *arguments],
            capture_output=True,
            text=True,
            timeout=180,
            env={name: value for name, value in {**kept, **own, **variables}.items() if value},
            cwd=self.directory,
            check=False,
        )

    @property
    def record(self) -> Record:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLOWRL_MACHINE", "first")
            record = Record.load(self.home)
        assert record is not None
        return record

    def second(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The command as on a second machine with the same home: it knows the password as any client does."""
        own = {"FLOWRL_MACHINE": "second", "PREFECT_SERVER_API_AUTH_STRING": "", "PREFECT_API_AUTH_STRING": PASSWORD}
        own |= {"PREFECT_API_KEY": "", "PREFECT_CLIENT_CUSTOM_HEADERS": ""}  # how a server is reached is theirs to say
        return self.call(*arguments, **{**own, **variables})

    def joins(self) -> tuple[str, ...]:
        return ("up", "--worker-only", "--server", self.record.server.url, "--pool", "gpu")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> Iterator[Guarded]:
    running = Guarded(tmp_path_factory.mktemp("guarded"), compiled)
    try:
        yield running
    finally:
        for stop in (running.second, running.call):
            assert stop("down").returncode == 0


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_up_says_what_it_did_and_leaves_it_up_on_its_own(guarded):
    said = lines(guarded.started)
    record = guarded.record
    urls = [line for line in said if "http" in line]
    assert urls[0] == f"UI: {record.server.ui}" and record.server.ui.endswith(f":{record.port}")
    assert urls[1:] == [f"other machines join with: flowrl up --worker-only --server {record.server.ui}/api"]
    for what in ("server: started", "pools: ", "automations: ", "deployments: ", "workers: started", "ready: control@"):
        assert any(line.startswith(what) for line in said), what
    for name in ("server", "workers"):
        process = record.alive(name)
        assert os.getsid(process.pid) == process.pid, "a terminal that closes does not reach it"
        assert process.environ()["FLOWRL_HOME"] == str(guarded.home.root), (
            "named relative to a directory, inherited absolute"
        )


def toml_of(spec) -> str:
    top = {"targets": spec.targets, "campaign": spec.campaign, "env": spec.env}
    groups = {"": top, "[training]": spec.training.model_dump(), "[evaluation]": spec.evaluation.model_dump()}
    return "\n".join(
        "\n".join([header, *(f"{name} = {json.dumps(value)}" for name, value in fields.items())])
        for header, fields in groups.items()
    )


def test_a_campaign_learns_the_same_whatever_a_person_has_set_of_prefect(guarded, compiled, tmp_path):
    wanted = flow_runs.spec("same", "dig_a")
    (tmp_path / "same.toml").write_text(toml_of(wanted))
    said = lines(guarded.call("campaign", "--config", str(tmp_path / "same.toml")))
    assert [line for line in said if line.startswith("dig_a: learned")]
    alone = Home(tmp_path / "alone")
    alone.root.mkdir()
    alone.cache.symlink_to(compiled)
    run, _ = corridor_runs.learn(alone, wanted, "dig_a")
    there, here = (corridor_runs.facts(home, run) for home in (guarded.home, alone))
    assert {**there, "files": None} == {**here, "files": None}, "but for the campaign's lock and the run's log"


def test_a_campaign_that_is_refused_ends_once_and_pages_have_their_logs_whatever_is_set(guarded, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter
    from prefect.deployments import arun_deployment

    monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)

    async def run() -> None:
        async with get_client() as client:
            nonsense = {"targets": ["dig_a"], "env": "nonsense"}
            refused = await arun_deployment("campaign/default", client=client, parameters=nonsense, timeout=90)
            assert refused.state is not None and refused.state.name == "Refused", refused.state
            assert refused.run_count == 1
            (trained,) = await find_runs(client, ["skill:dig_a", "campaign:same"], flow="train-skill")
            assert trained.run_count == 1
            logs = await client.read_logs(LogFilter.model_validate({"flow_run_id": {"any_": [trained.id]}}))
            assert any("device slot" in one.message for one in logs)

    with connected(guarded.record.server):
        asyncio.run(run())


def test_a_server_that_others_reach_lets_nobody_in_without_the_password(guarded):
    url = guarded.record.server.url
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/admin/version", timeout=10)
    check_server(url, {"PREFECT_API_AUTH_STRING": PASSWORD})
    nobody = guarded.call("up", PREFECT_SERVER_API_AUTH_STRING="")
    assert nobody.returncode == 2 and "export PREFECT_API_AUTH_STRING=" in nobody.stderr


def test_the_password_is_in_no_command_line_record_or_log(guarded):
    started = marked(guarded.record.mark)
    assert len(started) >= 2
    for process in started:
        assert "a se:cret" not in " ".join(process.cmdline())
    files = [
        path for path in guarded.home.root.rglob("*") if path.is_file() and path.suffix in (".json", ".log", ".toml")
    ]
    assert {path.name for path in files} >= {"embedded.json", "server.log", "workers.log"}
    assert not [path for path in files if b"a se:cret" in path.read_bytes()]
    assert "a se:cret" not in guarded.started.stdout + guarded.started.stderr


def test_a_second_machine_with_the_same_home_starts_no_second_server(guarded):
    refused = guarded.second("up")
    assert refused.returncode == 1
    assert "flowrl up --worker-only --server http" in refused.stderr and socket.gethostname() in refused.stderr


def test_a_second_machine_joins_with_workers_alone(guarded):
    first = lines(guarded.second(*guarded.joins()))
    assert first[0].startswith("UI: ")
    assert [line for line in first if line.startswith("ready: gpu@")]
    again = lines(guarded.second(*guarded.joins()))
    pid = next(line for line in first if line.startswith("workers: started")).rpartition(" ")[2]
    assert f"workers: already up, process {pid}" in again
    worker = psutil.Process(int(pid))
    assert worker.environ()["PREFECT_HOME"] == str(guarded.home.workers_prefect("second"))
    assert worker.cmdline()[-1] == "gpu"
    other = guarded.second("up", "--worker-only", "--server", guarded.record.server.url)
    assert other.returncode == 2 and "serve gpu" in other.stderr


def test_runs_identify_themselves_to_the_server(guarded, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.deployments import arun_deployment

    monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)

    async def run() -> str:
        async with get_client() as client:
            nobodys = {"campaign": "none", "skill": "none", "attempt": 99, "run": 99}
            found = await arun_deployment("train-skill/gpu", client=client, parameters=nobodys, timeout=60)
            return found.state.name if found.state else ""

    with connected(guarded.record.server):
        assert asyncio.run(run()) == "Failed", "its own process says so: there is no such run"


def test_after_a_run_the_password_is_in_no_file_and_in_no_database(guarded):
    """Parameters, logs, artifacts, deployments and workers are in Prefect's database, which lies in the home, too."""
    files = [path for path in guarded.home.root.rglob("*") if path.is_file()]
    assert {"prefect.db", "server.log"} <= {path.name for path in files}
    assert any(b"the registry has no run 99" in path.read_bytes() for path in files), "what the run said was searched"
    assert not [path for path in files if b"a se:cret" in path.read_bytes()]


def test_down_stops_what_this_machine_started_and_nothing_else(guarded):
    assert lines(guarded.second("down")) == [
        f"workers: stopped (of {guarded.record.server.url})",
        f"server: was started on {socket.gethostname()} and keeps running; `flowrl down` there stops it",
    ]
    record = guarded.record
    assert record.alive("server") and record.alive("workers")
    here = [process for process in psutil.process_iter() if mark_of(process) and "second" in machine_of(process)]
    assert not here


def test_the_doctor_tells_what_the_server_lacks(guarded, monkeypatch):
    from prefect.client.orchestration import get_client

    async def spoil() -> None:
        async with get_client() as client:
            campaign = await client.read_deployment_by_name("campaign/default")
            await client.delete_deployment(campaign.id)
            skill = await client.read_deployment_by_name("train-skill/gpu")
            body = {"parameter_openapi_schema": {"type": "object", "properties": {}}}
            await client._client.patch(f"/deployments/{skill.id}", json=body)

    monkeypatch.setenv("FLOWRL_MACHINE", "first")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)
    before = {finding.what: finding for finding in examine_server(guarded.home)}
    assert {finding.state for finding in before.values()} == {"ok"}, before
    assert set(before) >= {"server", "clock", "pool control", "pool gpu", "campaign/default", "train-skill/gpu"}
    with connected(guarded.record.server):
        asyncio.run(spoil())
    after = {finding.what: finding for finding in examine_server(guarded.home)}
    for what, found in (("campaign/default", "is not on the server"), ("train-skill/gpu", "another version")):
        assert found in after[what].found and after[what].mend == "flowrl up"
    mended = lines(guarded.call("up"))
    assert f"server: already up, process {guarded.record.alive('server').pid}" in mended
    assert all(finding.state == "ok" for finding in examine_server(guarded.home))


def test_down_ends_all_and_says_when_there_is_nothing(guarded):
    record = guarded.record
    assert lines(guarded.call("down")) == ["server and workers: stopped"]
    assert marked(record.mark) == []
    assert not guarded.home.embedded.exists()
    assert lines(guarded.call("down")) == [f"nothing is running for {guarded.home.root}"]


def mark_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.environ().get(MARK_VARIABLE, "")
    return ""


def machine_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("FLOWRL_MACHINE", "")
    return ""
