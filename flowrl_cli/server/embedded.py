"""The embedded Prefect: a server on the loopback interface and workers, used if no server is configured.

A record in the home lists what was started. It is written before the first process starts, and its mark is in the
environment of every started process and of its children. So all of them are found again, even after a kill -9 of the
command that started them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from flowrl_cli.process.signals import check
from flowrl_cli.process.ulimits import check_ulimits
from flowrl_cli.request.inputs import registry_uuid
from flowrl_cli.server.address import LOOPBACK, SERVER_AUTH_VARIABLE, canonical, choose_address, in_url
from flowrl_cli.server.configured import (
    AUTH_VARIABLE,
    check_server,
    check_settings,
    configured,
    credentials,
    wait_healthy,
)
from flowrl_cli.server.connection import asking, secrets_of
from flowrl_cli.server.detached import still_running
from flowrl_cli.server.environment import child_environment
from flowrl_cli.server.launch import SERVER, WORKERS, launch, launch_workers, stop_recorded, though_full
from flowrl_cli.server.output import story
from flowrl_cli.server.processes import find, marked, stop, this_process
from flowrl_cli.server.record import Record, Server
from flowrl_cli.server.temporary import with_temporary
from flowrl_core.errors import ConflictError, InputError, ServiceError
from flowrl_core.proxies import check_proxies
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.room import check_start, naming_no_room
from tasks.orchestration.devices.slots import count_slots
from tasks.orchestration.server.prefect_settings import variable_of

__all__ = [
    "Server",
    "check_not_stopped",
    "check_room",
    "check_startable",
    "detach",
    "down",
    "heal",
    "is_being_changed",
    "is_needed_by_others",
    "leave",
    "status",
    "up",
]

_START_S = 180.0
_PATIENCE_S = 20.0
_POLL_S = 0.1


def up(
    home: Home,
    *,
    keep: bool = False,
    campaign: str = "",
    host: str | None = None,
    port: int | None = None,
    redeploy: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Server:
    """Return the server to use, with deployments: the configured one, else an embedded one, started if necessary.

    This process counts as a user of the embedded server until `leave` or its end.

    Args:
        home: the home whose campaigns it serves.
        keep: leave the embedded server up when its last user has left.
        campaign: the campaign that this process follows; it is not detached any more.
        host, port: where the embedded server listens; by default a free port that only this machine can reach.
        redeploy: update the deployments on a configured server, too.
        say: receives a message for each step that takes time.

    Raises:
        InputError: as `check_startable`; nothing was written.
        ServiceError: the configured server is silent for a minute or denies access, or the embedded one does not start.
        NoRoomError: the home's disk became full meanwhile.
    """
    check_startable(home, host, port)
    if found := configured():
        wait_healthy(found)
        connection = credentials()
        check_server(found.url, connection)
        server = Server(found.url, is_embedded=False, address=connection.get(variable_of("ui_url"), ""))
        _deploy(home, server, redeploy=redeploy)
        return server
    with naming_no_room(home), _locked(home):
        home.prefect.mkdir(parents=True, exist_ok=True)
        record = _recorded(home, host, port).joined(this_process(), keep=keep, campaign=campaign)
        record.save(home)
        return _ensure(home, record, say)


def check_startable(home: Home, host: str | None = None, port: int | None = None) -> None:
    """Check that `up` can use the home's embedded server or start one. A configured server is not contacted.

    Raises:
        InputError: as `check_room`; the address cannot be used, differs from that of the running server, or is given
            although a server is configured; a password is missing; the named proxy is not supported; Prefect's settings
            cannot be read; or a requested device does not exist.
        ServiceError: the home's server runs on another machine, or a device is gone.
    """
    check_room(home)
    check_proxies()
    check_settings()
    if found := configured():
        if host is not None or port is not None:
            field = "--host" if host is not None else "--port"
            problem = f"a server is already configured, {found.url}, by {found.where}"
            raise InputError(field, problem, f"To start one here, {found.forget}")
        return
    count_slots()
    secrets_of(_recorded(home, host, port).server)


def check_room(home: Home) -> None:
    """Check that the home's server is up already, or that there is room to start one.

    Raises:
        InputError: there is no room, or a shell limit is too low.
    """
    check_ulimits()
    if status(home) is None:
        check_start(home)


def heal(home: Home, *, say: Callable[[str], None] = lambda text: None) -> bool:
    """Restart the dead processes of the embedded Prefect, and return whether there were any."""
    record = _load_here(home)
    if record is None or (record.alive(SERVER) and record.alive(WORKERS)):
        return False
    with _locked(home):
        record = _load_here(home)
        if record is None:
            return False
        _ensure(home, record, say)
    return True


def leave(
    home: Home,
    *,
    even_if_kept: bool = False,
    is_urgent: Callable[[], object] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Release the embedded Prefect, and stop it unless others use it, it is to be kept, or a detached campaign runs.

    Args:
        even_if_kept: stop it although it was to be kept: the command that asked for that did not finish.
        is_urgent: once this returns true, processes get no more time to end by themselves.
        say: receives a message if it stays up only for detached campaigns.

    Returns:
        Whether it was stopped.
    """
    if _load_here(home) is None:
        return False
    with _locked_soon(home, is_urgent) as is_locked:
        record = _load_here(home)
        if record is None:
            return False
        record = record.left(this_process())
        is_used = any(find(user) for user in record.users) or (record.keep and not even_if_kept)
        detached = () if is_used else still_running(home, record)
        if not is_used and not detached:
            stop_recorded(home, record, is_urgent=is_urgent)
            return True
        if is_locked:
            with contextlib.suppress(OSError):  # an ended user no longer counts, recorded or not
                record.save(home)
    if detached:
        running = f"campaign {detached[0]} is" if len(detached) == 1 else f"campaigns {' and '.join(detached)} are"
        say(f"{running} still running, so server and workers stay up; `flowrl down` stops everything")
    return False


def detach(home: Home, campaign: str, *, is_urgent: Callable[[], object] = lambda: False) -> bool:
    """Release the embedded Prefect, which stays up while the campaign runs; return whether that is recorded."""
    with _locked_soon(home, is_urgent) as is_locked:
        record = _load_here(home) if is_locked else None
        if record is None:
            return False
        with contextlib.suppress(OSError):
            record.left(this_process()).detaching(campaign).save(home)
            return True
        return False


def is_needed_by_others(home: Home) -> bool:
    """Whether the embedded Prefect stays up when this process leaves; see `leave`."""
    record = _load_here(home)
    if record is None:
        return False
    others = record.left(this_process())
    return others.keep or any(find(user) for user in others.users) or bool(still_running(home, others))


def check_not_stopped(home: Home) -> None:
    """Check that the embedded Prefect, which this process uses, was not stopped by another command.

    Raises:
        ServiceError: it was.
    """
    if Record.load(home) is None:
        raise ServiceError(
            "server, workers and runs were stopped by `flowrl down`. Run the same command again to resume"
        )


def is_being_changed(home: Home) -> bool:
    """Whether another command is starting or stopping the embedded Prefect: its missing processes have not crashed."""
    try:
        with _locked(home, wait=False):
            return False
    except ConflictError:
        return True
    except OSError:  # no room on the disk for a lock
        return False


def down(home: Home, *, is_urgent: Callable[[], object] = lambda: False) -> bool:
    """Stop everything that was started for this home on this machine, used or not; return whether there was anything.

    Runs get ten seconds to save a checkpoint, or until `is_urgent` returns true.
    """
    if _load_here(home) is None:
        return False
    with though_full(_locked(home)):
        record = _load_here(home)
        if record is not None:
            stop_recorded(home, record, is_urgent=is_urgent)
        return record is not None


def status(home: Home) -> Server | None:
    """Return the home's embedded server if its process is alive on this machine."""
    record = _load_here(home)
    return record.server if record and record.alive(SERVER) else None


def _load_here(home: Home) -> Record | None:
    record = Record.load(home)
    return record if record is not None and record.is_here else None


def _recorded(home: Home, host: str | None, port: int | None) -> Record:
    """Return the record of the home's server, or a new, unsaved one.

    Raises:
        InputError, ServiceError: as `check_startable`.
    """
    record = Record.load(home)
    if record is None:
        has_password = bool(os.environ.get(SERVER_AUTH_VARIABLE))
        return Record.new(choose_address(host, port), asks_for_password=has_password)
    if not record.is_here:
        url = record.server.ui if not record.address.is_loopback else "http://THAT-MACHINE:PORT"
        raise ServiceError(
            f"the server of {home.root} was started on another machine, {record.machine_name}. Join it with "
            f"`flowrl up --worker-only --server {url}/api`, and export PREFECT_API_URL={url}/api for other commands "
            f"(it must have been started with --host). If that machine is permanently gone, remove {home.embedded}"
        )
    mend = "Run `flowrl down` first"
    asked_host = canonical(host) if host else None
    for field, asked, known in (("--host", asked_host, record.host), ("--port", port, record.port)):
        if asked is not None and asked != known:
            raise InputError(field, f"the server of {home.root} was started with {known}, not {asked}", mend)
    if os.environ.get(SERVER_AUTH_VARIABLE) and not record.asks_for_password:
        raise InputError(SERVER_AUTH_VARIABLE, f"the server of {home.root} was started without a password", mend)
    return record


def _locked(home: Home, *, wait: bool = True) -> contextlib.AbstractContextManager[None]:
    return exclusive(home.root / "embedded.lock", what="the embedded Prefect of this home", wait=wait)


@contextlib.contextmanager
def _locked_soon(home: Home, is_urgent: Callable[[], object]) -> Iterator[bool]:
    """Hold the lock; yield whether it was acquired in time: a hung thread of this very process may hold it."""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_locked(home, wait=False))
                break
            except (ConflictError, OSError) as exc:  # OSError: a full disk has no room for a lock
                if isinstance(exc, OSError) or is_urgent() or time.monotonic() > deadline:
                    yield False
                    return
            time.sleep(_POLL_S)
        yield True


def _ensure(home: Home, record: Record, say: Callable[[str], None]) -> Server:
    """Start the processes of the record that are not alive, and wait until the server answers."""
    record = _ensure_server(home, with_temporary(home, record), say)
    if not record.alive(WORKERS):
        secrets = secrets_of(record.server)
        environment = child_environment(home, home.prefect, record.mark, record.server.url, secrets)
        record = launch_workers(home, record, environment=environment, directory=home.prefect)
    import tasks.orchestration.server.bootstrap  # noqa: F401  (its two seconds of imports pass while the server starts)

    _await_start(home, record)
    check_server(record.server.url, secrets_of(record.server))
    _deploy(home, record.server)
    return record.server


def _ensure_server(home: Home, record: Record, say: Callable[[str], None]) -> Record:
    if record.alive(SERVER):
        return record
    address = record.address
    if not address.is_free:
        if address.is_fixed:
            raise ServiceError(
                f"another process listens on {address.host} port {address.port}: stop them, or `flowrl down`"
            )
        # Processes that know only the old address cannot continue; their runs resume from checkpoints later.
        stop(marked(record.mark))
        record = record.at(address.moved())
        record.save(home)
    say("starting a local Prefect server")
    options = ["--timeout-keep-alive", "5", "--log-level", "warning"]
    listen = ["--host", record.host, "--port", str(record.port)]
    module = ["uvicorn", "--factory", "tasks.orchestration.server.serving:create_app", *options, *listen]
    return launch(home, record, SERVER, module, environment=_server_environment(home, record), directory=home.prefect)


def _server_environment(home: Home, record: Record) -> dict[str, str]:
    secrets = secrets_of(record.server)
    environment = child_environment(home, home.prefect, record.mark, record.server.url, secrets, serves=True)
    if secrets:
        environment[SERVER_AUTH_VARIABLE] = secrets[AUTH_VARIABLE]
    if record.address.is_loopback:
        # Otherwise any web page open in a browser on this machine could read everything from the server.
        origins = ",".join(f"http://{host}:{record.port}" for host in (LOOPBACK, "localhost", in_url(record.host)))
        environment.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", origins)
    else:
        # The URL for browsers on other machines, unless the user sets another (a proxy's address, for example).
        environment.setdefault("PREFECT_UI_API_URL", f"{record.server.ui}/api")
    return environment


def _await_start(home: Home, record: Record) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and record.alive(SERVER):
        check()
        with contextlib.suppress(ServiceError):
            wait_healthy(record.server.url, seconds=2.0)
            return
    raise ServiceError(
        f"the embedded Prefect server did not start: {story(home, record, SERVER)}. "
        "Fix that, run `flowrl down` and try again"
    )


def _deploy(home: Home, server: Server, *, redeploy: bool = False) -> None:
    """Create the deployments on the server, and report lost runs to it.

    Raises:
        ServiceError: the server is gone, or rejects them.
    """
    from tasks.orchestration.server.bootstrap import bootstrap_server

    with asking(server, "its deployments"):
        bootstrap_server(own=server.is_embedded, registry=registry_uuid(home), redeploy=redeploy)
