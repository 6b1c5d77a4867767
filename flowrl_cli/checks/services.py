"""Checks of `flowrl doctor` on the Prefect server and on FlowRL's objects there."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Iterator
from functools import partial

from flowrl_cli.checks.finding import Diagnosis, bounded
from flowrl_cli.server.configured import check_server, check_settings, configured, wait_healthy
from flowrl_cli.server.fetching import NoAnswerError, fetch
from flowrl_cli.server.record import Record, Server
from flowrl_cli.server.versions import warning
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.proxies import check_proxies, named_proxies
from flowrl_core.storage.layout import Home

__all__ = ["clock_of", "examine_proxies", "examine_server"]

_ANSWER_S = 3.0
_MOST_SKEW_S = 5.0
"""Prefect relies on synchronous clocks: otherwise runs start late, and workers count as dead."""
_INVENTORY_S = 20.0


def examine_server(home: Home) -> Iterator[Diagnosis]:
    """Yield the findings on the server that commands would use, and on FlowRL's objects there; starts nothing."""
    record = Record.load(home)
    try:
        check_settings()
        found = configured()
    except InputError as exc:
        yield Diagnosis("server", "wrong", f"{exc.field}: {exc.problem}", exc.remedy)
        return
    server = Server(found.url, is_embedded=False) if found else None
    mend = f"start that server, or {found.forget} to use a local one" if found else "flowrl up"
    if server is None and record is not None:
        if not record.is_here:
            join = "flowrl up --worker-only --server http://THAT-MACHINE:PORT/api"
            yield Diagnosis("server", "wrong", f"the one of this home is on {record.machine_name}", join)
            return
        server = record.server
    if server is None:
        yield Diagnosis("server", "ok", "none is configured: `flowrl campaign` or `flowrl up` starts a local one")
        return
    from flowrl_cli.checks.troubles import deaths
    from flowrl_cli.server.connection import secrets_of

    dead = deaths(home)
    try:
        wait_healthy(found or server.url, seconds=_ANSWER_S)
        # The error includes the remedy: a password, another version, another URL.
        mend = f"fix the problem above, or {found.forget} to use a local one" if found else "flowrl up"
        version = check_server(server.url, secrets_of(server))
    except (InputError, ServiceError) as exc:
        if server.is_embedded and "server" in dead:
            yield Diagnosis("server", "wrong", f"has died: {dead['server']}", "flowrl up")
        else:
            yield Diagnosis("server", "wrong", str(exc), mend)
        return
    yield Diagnosis("server", "ok", f"{found.url} (of {found.where})" if found else server.url)
    yield Diagnosis("server's version", "ok", warning(version))
    yield clock_of(server.url)
    belongings = partial(_belongings, server, dead.get("workers"))
    yield from bounded("server", belongings, seconds=_INVENTORY_S, mend=f"look into the log of {server.url}")


def clock_of(url: str) -> Diagnosis:
    """Return how far this machine's clock is from the server's, by the Date header of the server's answers."""
    try:
        answer = fetch(f"{url}/health", seconds=_ANSWER_S)
        now, said = time.time(), answer.headers.get("date", "")
        theirs = email.utils.parsedate_to_datetime(said).timestamp()
    except (NoAnswerError, TypeError, ValueError):
        return Diagnosis("clock", "unknown", "not compared: the server does not report its time")
    # The header has whole seconds.
    skew = now - theirs - 0.5
    if abs(skew) <= _MOST_SKEW_S:
        return Diagnosis("clock", "ok", f"within {_MOST_SKEW_S:.0f} s of the server's")
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's"
    return Diagnosis("clock", "wrong", found, "timedatectl set-ntp true, on both machines")


def examine_proxies() -> Iterator[Diagnosis]:
    """Yield the findings on the proxies that the environment names, if any."""
    try:
        check_proxies()
    except InputError as exc:
        yield Diagnosis("proxies", "wrong", f"{exc.field}: {exc.problem}", exc.remedy)
        return
    if named := named_proxies(os.environ):
        found = ", ".join(f"{name} {address}" for name, address in named.items())
        yield Diagnosis("proxies", "ok", f"{found}; not used for this machine")


def _belongings(server: Server, died: str | None) -> Iterator[Diagnosis]:
    """Yield the findings on FlowRL's objects on a server; `died`: the last words of this machine's workers, if dead."""
    from flowrl_cli.server.connection import connected
    from tasks.orchestration.server.inventory import take_inventory

    with connected(server):
        found = take_inventory()
    for pool, workers in found.workers.items():
        what = f"pool {pool}"
        if workers is None:
            yield Diagnosis(what, "wrong", "is not on the server", "flowrl up")
        elif not workers:
            mend = "flowrl up" if server.is_embedded else f"flowrl up --worker-only --server {server.url} --pool {pool}"
            yield Diagnosis(what, "wrong", "no worker is online" + (f"; it died: {died}" if died else ""), mend)
        else:
            yield Diagnosis(what, "ok", f"{len(workers)} online: {', '.join(workers)}")
    deploy = "flowrl up" if server.is_embedded else "flowrl up --redeploy"
    for name, is_current in found.deployments.items():
        if is_current is None:
            yield Diagnosis(name, "wrong", "is not on the server", "flowrl up")
        elif not is_current:
            yield Diagnosis(name, "wrong", "belongs to another version of FlowRL", deploy)
        else:
            yield Diagnosis(name, "ok", "deployed")
    if not found.automations:
        yield Diagnosis("automation", "wrong", "missing, so runs whose machine is gone are never ended", "flowrl up")
