"""This machine's workers for a remote Prefect server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from flowrl_cli.process.ulimits import check_ulimits
from flowrl_cli.request.inputs import registry_uuid
from flowrl_cli.server.configured import Configured, check_server, check_settings, credentials, wait_healthy
from flowrl_cli.server.connection import asking, connected
from flowrl_cli.server.environment import child_environment
from flowrl_cli.server.launch import WORKERS, launch_workers, stop_recorded, though_full
from flowrl_cli.server.machine import machine_id
from flowrl_cli.server.output import story
from flowrl_cli.server.record import Record, Server
from flowrl_cli.server.temporary import with_temporary
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.proxies import check_proxies
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.room import check_start
from tasks.orchestration.devices.slots import count_slots

__all__ = ["await_ready", "join", "part"]

_ANSWER_S = 5.0
_READY_S = 60.0


def join(home: Home, server: Configured | str, pools: Sequence[str] = ()) -> tuple[Record, bool]:
    """Start workers for the server's pools on this machine, unless they are up.

    Args:
        server: a configured server, or the URL of its API.
        pools: the pools that they serve; empty: all.

    Returns:
        Their record, and whether they were already up.

    Raises:
        InputError: a pool does not exist, the home's disk has no room, a shell limit is too low, the workers already
            serve another server or other pools, or a requested device does not exist.
        ServiceError: the server does not answer, is not a Prefect server, denies access, or lacks the pools.
    """
    url = server.url if isinstance(server, Configured) else server.rstrip("/")
    record, was_up = _joined(home, server, url, pools)
    _declare_lost(home, record.server)
    return record, was_up


def _joined(home: Home, server: Configured | str, url: str, pools: Sequence[str]) -> tuple[Record, bool]:
    record = Record.load_workers(home)
    if record is not None and record.alive(WORKERS):
        _check_same(record, url, pools)
        return record, True
    check_ulimits()
    check_settings()
    _check_pools(pools)
    check_start(home)
    count_slots()
    check_proxies()
    wait_healthy(server, seconds=_ANSWER_S)
    check_server(url, credentials())
    _check_served(Server(url, is_embedded=False), pools)
    with _locked(home):
        record = Record.load_workers(home)
        if record is not None and record.alive(WORKERS):
            _check_same(record, url, pools)
            return record, True
        if record is not None:
            stop_recorded(home, record)
        record = with_temporary(home, Record.new_workers(url, tuple(pools)))
        directory = home.workers_prefect(record.machine)
        directory.mkdir(parents=True, exist_ok=True)
        environment = child_environment(home, directory, record.mark, url, credentials())
        return launch_workers(home, record, environment=environment, directory=directory), False


def part(home: Home, *, is_urgent: Callable[[], object] = lambda: False) -> str | None:
    """Stop this machine's workers for a remote server, and their runs, which first save a checkpoint.

    Args:
        is_urgent: once this returns true, processes get no more time to end by themselves.

    Returns:
        The server's URL, or None if there were no workers.
    """
    if Record.load_workers(home) is None:
        return None
    with though_full(_locked(home)):
        record = Record.load_workers(home)
        if record is None:
            return None
        stop_recorded(home, record, is_urgent=is_urgent)
        return record.elsewhere


def await_ready(home: Home, record: Record) -> tuple[str, ...]:
    """Return the names of the record's workers once the server reports all of them online.

    Raises:
        ServiceError: they are not online after a minute, or have died; the error includes their last error.
    """
    from tasks.orchestration.server.bootstrap import POOLS
    from tasks.orchestration.server.inventory import await_workers

    def lives() -> bool:
        return record.alive(WORKERS) is not None

    process = record.alive(WORKERS)
    pools = record.pools or POOLS
    with connected(record.server):
        online = await_workers(pools, process.pid, seconds=_READY_S, lives=lives) if process else ()
    if len(online) < len(pools):
        what = "did not come online" if lives() else "have died"
        said = story(home, record, WORKERS)
        raise ServiceError(f"the workers {what}: {said}. Fix that, run `flowrl down` and try again")
    return online


def _declare_lost(home: Home, server: Server) -> None:
    from tasks.orchestration.server.bootstrap import tell_lost

    registry = registry_uuid(home)
    if registry is None:  # this home has no runs yet
        return
    with asking(server, "its runs"):
        tell_lost(own=False, registry=registry)


def _check_pools(pools: Sequence[str]) -> None:
    from flowrl_cli.request.inputs import check_known
    from tasks.orchestration.server.bootstrap import POOLS

    for pool in pools:
        check_known("--pool", "pool", pool, POOLS)


def _check_served(server: Server, pools: Sequence[str]) -> None:
    from tasks.orchestration.server.bootstrap import POOLS
    from tasks.orchestration.server.inventory import missing_pools

    with asking(server, "its pools"):
        missing = missing_pools(pools or POOLS)
    if missing:
        raise ServiceError(
            f"the server {server.url} has no pool {' and '.join(missing)}: run `flowrl up` there, or here "
            f"`PREFECT_API_URL={server.url} flowrl up`"
        )


def _check_same(record: Record, url: str, pools: Sequence[str]) -> None:
    if record.elsewhere != url:
        problem = f"the workers of this machine serve {record.elsewhere}"
        raise InputError("--server", problem, "Run `flowrl down` first")
    if set(record.pools) != set(pools):
        problem = f"the workers of this machine serve {' and '.join(record.pools) or 'all pools'}"
        raise InputError("--pool", problem, "Run `flowrl down` first")


def _locked(home: Home) -> contextlib.AbstractContextManager[None]:
    path = home.workers_record(machine_id()).with_suffix(".lock")
    return exclusive(path, what="the record of this machine's workers", wait=True)
