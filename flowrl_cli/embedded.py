"""The embedded Prefect: a server on the loopback interface and workers, for those who have configured none.

A record in the home tells what was started. Its mark is also in the environment of every process that was started, and
of their children, and it is written before the first of them: so all of them are found again, also after a kill -9 of
who started them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator

import psutil

from flowrl_cli.configured import configured_url, wait_healthy
from flowrl_cli.processes import MARK_VARIABLE, find, marked, spawn, stop, this_process
from flowrl_cli.record import Record, Server
from flowrl_core.errors import ServiceError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive

__all__ = ["Server", "connected", "down", "heal", "leave", "status", "up"]

_WORKERS = "workers"
_SERVER = "server"
_START_S = 180.0
_LOOPBACK = "127.0.0.1"

_SETTINGS = {
    # A worker looks for runs every ten seconds by default; that would be the largest part of a dependant's wait.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # In memory, leases that are held when the server restarts would never be given back.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # Marking a deep queue as late locks the database for everybody else.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "3600",
    # The default writes pickles.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flowrl_core,tasks",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}
# What a person's environment says of another server must not reach ours.
_FOREIGN = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
# With this set (as many containers have it), and packages installed without bytecode, every run of every skill would
# compile all that it imports from source: half of its processor time to the first line.
_SLOW = ("PYTHONDONTWRITEBYTECODE",)


def up(home: Home, *, keep: bool = False, say: Callable[[str], None] = lambda text: None) -> Server:
    """The server to use, with the deployments on it: the configured one, else an embedded one, started if need be.

    This process counts as a user of the embedded one until `leave` or its end.

    Args:
        home: whose campaigns it serves.
        keep: leave the embedded server up when its last user has left.
        say: told in words what takes time.

    Raises:
        ServiceError: the configured server is silent for a minute, or the embedded one does not start.
    """
    if url := configured_url():
        wait_healthy(url)
        server = Server(url, is_embedded=False)
        _deploy(server, alive=None)
        return server
    home.prefect.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        record = Record.load(home) or Record.new(_free_port())
        record = record.joined(this_process(), keep=keep)
        record.save(home)
        return _ensure(home, record, say)


def heal(home: Home, *, say: Callable[[str], None] = lambda text: None) -> bool:
    """Start again what of the embedded Prefect has died; whether anything had."""
    record = Record.load(home)
    if record is None or (record.alive(_SERVER) and record.alive(_WORKERS)):
        return False
    with _locked(home):
        record = Record.load(home)
        if record is None:
            return False
        _ensure(home, record, say)
    return True


def leave(home: Home) -> bool:
    """This process needs the embedded Prefect no more: stop it if nobody else does and nobody asked to keep it.

    Returns:
        Whether it was stopped.
    """
    if not home.embedded.exists():
        return False
    with _locked(home):
        record = Record.load(home)
        if record is None:
            return False
        record = record.left(this_process())
        if record.keep or any(find(user) for user in record.users):
            record.save(home)
            return False
        _stop_all(home, record)
        return True


def down(home: Home) -> bool:
    """Stop all that was started for this home, whoever uses it; whether there was anything.

    Runs get ten seconds to save a checkpoint.
    """
    if not home.embedded.exists():
        return False
    with _locked(home):
        record = Record.load(home)
        if record is not None:
            _stop_all(home, record)
        return record is not None


def status(home: Home) -> Server | None:
    """The embedded server of this home if its process lives."""
    record = Record.load(home)
    return record.server if record and record.alive(_SERVER) else None


@contextlib.contextmanager
def connected(server: Server) -> Iterator[None]:
    """Within the block Prefect's clients of this process talk to the server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings

    _bypass_proxies(os.environ)
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_SERVER_ANALYTICS_ENABLED: False}):
        yield


def _locked(home: Home) -> contextlib.AbstractContextManager[None]:
    return exclusive(home.root / "embedded.lock", what="the embedded Prefect of this home", wait=True)


def _ensure(home: Home, record: Record, say: Callable[[str], None]) -> Server:
    """Start what of the record does not live, and wait until the server answers."""
    record = _ensure_server(home, record, say)
    alive = None
    if not record.alive(_WORKERS):
        alive = _flow_runs_alive(record)
        command = [sys.executable, "-P", "-m", "tasks.orchestration.workers"]
        record = _spawn(home, record, _WORKERS, command)
    import tasks.orchestration.bootstrap  # noqa: F401  (its two seconds of imports pass while the server starts)

    _await_start(home, record)
    _deploy(record.server, alive=alive)
    return record.server


def _ensure_server(home: Home, record: Record, say: Callable[[str], None]) -> Record:
    if record.alive(_SERVER):
        return record
    if not _is_free(record.port):
        # Nothing that knows only the old address can go on; the runs adopt their checkpoints later.
        stop(marked(record.mark))
        record = record.moved(_free_port())
        record.save(home)
    say("starting a local Prefect server")
    factory = [
        "--factory",
        "prefect.server.api.server:create_app",
        "--timeout-keep-alive",
        "5",
        "--log-level",
        "warning",
    ]
    command = [sys.executable, "-P", "-m", "uvicorn", *factory, "--host", _LOOPBACK, "--port", str(record.port)]
    return _spawn(home, record, _SERVER, command)


def _spawn(home: Home, record: Record, name: str, command: list[str]) -> Record:
    started = spawn(
        name,
        command,
        environment=_environment(home, record),
        directory=home.prefect,
        log=home.prefect / f"{name}.log",
    )
    record = record.with_process(started)
    record.save(home)
    return record


def _environment(home: Home, record: Record) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*_FOREIGN, *_SLOW)}
    environment = {
        **_SETTINGS,
        **kept,
        MARK_VARIABLE: record.mark,
        "FLOWRL_HOME": str(home.root),
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_URL": record.server.url,
        "PREFECT__SERVER_FINAL": "1",
    }
    _bypass_proxies(environment)
    return environment


def _bypass_proxies(environment: dict[str, str] | os._Environ[str]) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in environment.get(name, "").split(",") if host]
        if _LOOPBACK not in hosts:
            environment[name] = ",".join([*hosts, _LOOPBACK])


def _await_start(home: Home, record: Record) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and record.alive(_SERVER):
        with contextlib.suppress(ServiceError):
            wait_healthy(record.server.url, seconds=2.0)
            return
    log = home.prefect / f"{_SERVER}.log"
    raise ServiceError(f"the embedded Prefect server did not start: see {log}, then try again after `flowrl down`")


def _deploy(server: Server, *, alive: set[str] | None) -> None:
    """Bring the deployments to the server; `alive`: the only flow runs that may still execute, if that is known."""
    from tasks.orchestration.bootstrap import bootstrap_server

    with connected(server):
        bootstrap_server(own=server.is_embedded, alive=alive)


def _flow_runs_alive(record: Record) -> set[str]:
    runs = set()
    for process in marked(record.mark):
        with contextlib.suppress(psutil.Error):
            runs.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return runs - {""}


def _stop_all(home: Home, record: Record) -> None:
    """Runs first, then workers, then the server they report to."""
    workers = [worker] if (worker := record.alive(_WORKERS)) else []
    server = [server] if (server := record.alive(_SERVER)) else []
    for worker in workers:
        # A worker that is asked to end kills its runs at once; one that goes on would start others.
        with contextlib.suppress(psutil.Error):
            worker.suspend()
    stop(process for process in marked(record.mark) if process not in (*workers, *server))
    stop(workers)
    stop(server)
    stop(marked(record.mark))
    home.embedded.unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does it: connections that linger from its predecessor do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True
