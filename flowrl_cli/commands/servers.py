"""`flowrl up` and `flowrl down`: start and stop what this machine needs to run campaigns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from flowrl_cli.server.configured import Configured
    from flowrl_cli.server.record import Record
    from flowrl_core.storage.layout import Home

__all__ = ["down", "up"]


def up(
    *,
    host: str | None = None,
    port: Annotated[int | None, Parameter(validator=lambda _, value: _check_port(value))] = None,
    worker_only: Annotated[bool, Parameter(negative="")] = False,
    server: str | None = None,
    pool: Annotated[list[str] | None, Parameter(negative="")] = None,
    redeploy: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Start what this machine needs and leave it running: a Prefect server if none is configured, deployments, workers.

    Returns when the workers are ready. Running services are left alone.

    Parameters
    ----------
    host
        The address that the server listens on (127.0.0.1). Any other needs a password in
        PREFECT_SERVER_API_AUTH_STRING.
    port
        The port that the server listens on (default: a free one).
    worker_only
        Start only workers, for the remote server that --server names.
    server
        The URL of that server's API, http://HOST:PORT/api (default: PREFECT_API_URL).
    pool
        A pool that the workers serve, control or gpu; repeat it for more (default: both).
    redeploy
        On a configured server, update FlowRL's deployments to this version; their schedules and parameters stay.
    """
    from flowrl_cli.checks.installed import check_installation
    from flowrl_cli.process.account import check_directory
    from flowrl_cli.request.inputs import check_registry
    from flowrl_cli.server.configured import Configured, configured
    from flowrl_core.errors import InputError
    from flowrl_core.storage.layout import Home

    check_installation()
    check_directory()
    home = Home.from_environment()
    home.check_writable()
    check_registry(home)
    if not worker_only:
        for name, value in (("server", server), ("pool", pool)):
            if value is not None:
                raise InputError(f"--{name}", "it applies only to workers of a server elsewhere", "Add --worker-only")
        with _nothing_half_done(home):
            _up(home, host, port, redeploy=redeploy)
        return
    for name, unused in (("host", host), ("port", port), ("redeploy", redeploy or None)):
        if unused is not None:
            problem = "nothing is deployed here" if name == "redeploy" else "no server is started here"
            raise InputError(f"--{name}", problem, "Omit it, or omit --worker-only")
    found = Configured.by_option(server) if server else configured()
    if found is None:
        raise InputError("--server", "no server is named", "Add --server http://HOST:PORT/api")
    with _nothing_half_done(home):
        _join(home, found, pool or [])


def down() -> None:
    """Stop the server, workers and runs that were started for this home on this machine; runs save a checkpoint first.

    What was started elsewhere, or by others, goes on.
    """
    from flowrl_cli.process.signals import deferred
    from flowrl_cli.server import embedded, workers
    from flowrl_cli.server.record import Record
    from flowrl_core.storage.layout import Home

    home = Home.from_environment()
    # Interrupted halfway it would leave workers suspended: a request to end makes it faster instead.
    with deferred() as again:
        left = workers.part(home, is_urgent=again)
        was_up = embedded.down(home, is_urgent=again)
    if left is not None:
        print(f"workers: stopped (of {left})")
    if was_up:
        print("server and workers: stopped")
    record = Record.load(home)
    if record is not None:
        print(f"server: was started on {record.machine_name} and keeps running; `flowrl down` there stops it")
    elif not was_up and left is None:
        print(f"nothing is running for {home.root}")


@contextlib.contextmanager
def _nothing_half_done(home: Home) -> Iterator[None]:
    """Stop what the block started if the command is asked to end in it; what was up before stays up."""
    from flowrl_cli.process.signals import Interrupted, asked, deferred
    from flowrl_cli.server import embedded, workers
    from flowrl_cli.server.launch import WORKERS
    from flowrl_cli.server.record import Record

    def is_joined() -> bool:
        record = Record.load_workers(home)
        return record is not None and record.alive(WORKERS) is not None

    was_up, was_joined = embedded.status(home) is not None, is_joined()
    try:
        yield
    except (Interrupted, Exception) as exc:
        # Code that a request interrupts, or prevents from starting, may raise another error.
        request = asked()
        if request is None:
            raise
        with deferred() as again:
            if not was_joined:
                workers.part(home, is_urgent=again)
            embedded.leave(home, even_if_kept=not was_up, is_urgent=again)
        raise request from exc


def _up(home: Home, host: str | None, port: int | None, *, redeploy: bool) -> None:
    from flowrl_cli.server import embedded, workers
    from flowrl_cli.server.launch import SERVER, WORKERS
    from flowrl_cli.server.record import Record
    from flowrl_core.errors import NoRoomError

    before = Record.load(home)
    was_up = {name: before is not None and before.alive(name) is not None for name in (SERVER, WORKERS)}
    try:
        server = embedded.up(
            home,
            keep=True,
            host=host,
            port=port,
            redeploy=redeploy,
            say=lambda text: print(f"{text} ...", flush=True),
        )
    except NoRoomError:
        if not was_up[SERVER]:
            embedded.down(home)
        raise
    print(f"UI: {server.ui}", flush=True)
    record = Record.load(home) if server.is_embedded else None
    if record is None:
        print("server: configured, so FlowRL neither starts nor stops it")
        record, was_up[WORKERS] = workers.join(home, server.url)
    else:
        _say_state("server", SERVER, record, was_up[SERVER])
        if not record.address.is_loopback:
            print(f"other machines join with: flowrl up --worker-only --server {server.ui}/api")
            print("with this server's password in PREFECT_API_AUTH_STRING; commands also need PREFECT_API_URL")
    _say_inventory(record, is_updated=server.is_embedded or redeploy)
    _say_state("workers", WORKERS, record, was_up[WORKERS])
    _say_ready(home, record)


def _join(home: Home, server: Configured, pools: list[str]) -> None:
    from flowrl_cli.server import workers
    from flowrl_cli.server.launch import WORKERS

    record, was_up = workers.join(home, server, pools)
    print(f"UI: {record.server.ui}", flush=True)
    if home.registry_url.startswith("sqlite"):
        print(f"registry: a file, {home.registry}; for several machines, set FLOWRL_REGISTRY_URL to a database server")
    _say_state("workers", WORKERS, record, was_up)
    _say_ready(home, record)


def _say_state(what: str, name: str, record: Record, was_up: bool) -> None:
    process = record.alive(name)
    number = f"process {process.pid}" if process else "gone again"
    print(f"{what}: {'already up' if was_up else 'started'}, {number}", flush=True)


def _say_inventory(record: Record, *, is_updated: bool) -> None:
    from flowrl_cli.server.connection import asking
    from tasks.orchestration.server.inventory import take_inventory

    with asking(record.server, "what it has"):
        found = take_inventory()
    # On a server that others own, existing objects change only on request.
    state = "up to date" if is_updated else "there"
    for what, names in (
        ("pools", [f"{pool} (queues {', '.join(queues)})" for pool, queues in found.queues.items()]),
        ("automations", found.automations),
        ("deployments", found.deployments),
    ):
        print(f"{what}: {state}: {', '.join(names)}", flush=True)


def _say_ready(home: Home, record: Record) -> None:
    from flowrl_cli.server import workers
    from tasks.orchestration.devices.slots import survey_here

    survey = survey_here()
    print(f"ready: {', '.join(workers.await_ready(home, record))}; {len(survey.slots)} device slots")
    for remark in survey.remarks:
        print(f"note: {remark}")
    print("Stop everything with `flowrl down`")


def _check_port(value: int | None) -> None:
    if value is not None and not 1 <= value <= 65_535:
        raise ValueError("Name a port from 1 to 65535")
