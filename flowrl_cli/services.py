"""What `flowrl doctor` finds of services: the Prefect server and what it has of FlowRL, and the registry's database."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flowrl_cli.configured import AUTH_VARIABLE, check_server, configured, wait_healthy
from flowrl_cli.fetching import NoAnswerError, fetch
from flowrl_cli.finding import Finding, bounded
from flowrl_cli.record import Record, Server
from flowrl_core.errors import FlowRLError, InputError, ServiceError
from flowrl_core.proxies import check_proxies, named_proxies
from flowrl_core.storage.layout import URL_VARIABLE, Home

__all__ = ["clock_of", "examine_proxies", "examine_registry", "examine_server"]

_ANSWER_S = 3.0
_MOST_SKEW_S = 5.0
"""Prefect counts on the clocks of its machines: runs start late, and workers are taken for dead."""
_INVENTORY_S = 20.0


def examine_server(home: Home) -> Iterator[Finding]:
    """The server that commands would use, and what it has of FlowRL; nothing is started."""
    record = Record.load(home)
    found = configured()
    server = Server(found.url, is_embedded=False) if found else None
    mend = f"start that server, or {found.forget} to use a local one" if found else "flowrl up"
    if server is None and record is not None:
        if not record.is_here:
            join = "flowrl up --worker-only --server http://THAT-MACHINE:PORT/api"
            yield Finding("server", "wrong", f"the one of this home is on {record.machine_name}", join)
            return
        server = record.server
    if server is None:
        yield Finding("server", "ok", "none is configured: `flowrl campaign` or `flowrl up` starts a local one")
        return
    from flowrl_cli.embedded import secrets_of

    try:
        wait_healthy(found or server.url, seconds=_ANSWER_S)
        mend = f"export {AUTH_VARIABLE}=USER:PASSWORD, or {found.forget} to use a local one" if found else "flowrl up"
        check_server(server.url, secrets_of(server))
    except (InputError, ServiceError) as exc:
        yield Finding("server", "wrong", str(exc), mend)
        return
    yield Finding("server", "ok", f"{found.url} (of {found.where})" if found else server.url)
    yield clock_of(server.url)
    belongings = partial(_belongings, server)
    yield from bounded("server", belongings, seconds=_INVENTORY_S, mend=f"look into the log of {server.url}")


def clock_of(url: str) -> Finding:
    """How far this machine's clock is from the server's, by what the server writes above its answers."""
    try:
        answer = fetch(f"{url}/health", seconds=_ANSWER_S)
        now, said = time.time(), answer.headers.get("Date", "")
        theirs = email.utils.parsedate_to_datetime(said).timestamp()
    except (NoAnswerError, TypeError, ValueError):
        return Finding("clock", "ok", "the server does not tell its own")
    # It tells whole seconds.
    skew = now - theirs - 0.5
    if abs(skew) <= _MOST_SKEW_S:
        return Finding("clock", "ok", f"within {_MOST_SKEW_S:.0f} s of the server's")
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's"
    return Finding("clock", "wrong", found, "timedatectl set-ntp true, on both machines")


def examine_proxies() -> Iterator[Finding]:
    """The proxies that the environment names, if any."""
    try:
        check_proxies()
    except InputError as exc:
        yield Finding("proxies", "wrong", f"{exc.field}: {exc.problem}", exc.remedy)
        return
    if named := named_proxies(os.environ):
        found = ", ".join(f"{name} {address}" for name, address in named.items())
        yield Finding("proxies", "ok", f"{found}; none is asked for this machine")


def examine_registry(home: Home) -> Iterator[Finding]:
    """The registry's database: can it be reached, and is its schema this FlowRL's? Nothing is changed."""
    import sqlalchemy as sa

    from flowrl_core.storage.database import make_engine, reading
    from flowrl_core.storage.schema import HEAD

    try:
        engine = make_engine(_impatient(home.registry_url))
    except InputError as exc:
        driver = 'pip install "psycopg[binary]"' if "psycopg" in exc.problem else f"unset {URL_VARIABLE}"
        yield Finding("registry", "wrong", exc.problem, f"{driver}, or correct {URL_VARIABLE}")
        return
    name = engine.url.render_as_string(hide_password=True)
    is_file = engine.dialect.name == "sqlite"
    if is_file and not Path(engine.url.database or "").exists():
        yield Finding("registry", "ok", f"{name} (will be made)")
        return
    try:
        with reading(engine) as connection:
            is_empty = not sa.inspect(connection).has_table("alembic_version")
            found = "" if is_empty else connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    except FlowRLError as exc:
        mend = "restore it from a backup" if is_file else f"start that database, or correct {URL_VARIABLE}"
        yield Finding("registry", "wrong", str(exc), mend)
        return
    finally:
        engine.dispose()
    if found in ("", HEAD):
        yield Finding("registry", "ok", f"{name} ({f'schema {found}' if found else 'empty: will be made'})")
    elif str(found) < HEAD:
        backup = "with a backup beside it" if is_file else "back it up before"
        yield Finding(
            "registry", "wrong", f"{name} has schema {found}, not {HEAD}", f"flowrl status migrates it, {backup}"
        )
    else:
        mend = "use the newer FlowRL that wrote it"
        yield Finding("registry", "wrong", f"{name} has schema {found}, this FlowRL knows up to {HEAD}", mend)


def _impatient(url: str) -> str:
    """The URL with a limit to how long a database that does not answer is waited for."""
    import sqlalchemy as sa
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        return url
    if not parsed.drivername.startswith("postgresql") or "connect_timeout" in parsed.query:
        return url
    patient = parsed.update_query_dict({"connect_timeout": f"{_ANSWER_S:.0f}"})
    return patient.render_as_string(hide_password=False)


def _belongings(server: Server) -> Iterator[Finding]:
    from flowrl_cli.embedded import connected
    from tasks.orchestration.inventory import take_inventory

    with connected(server):
        found = take_inventory()
    for pool, workers in found.workers.items():
        what = f"pool {pool}"
        if workers is None:
            yield Finding(what, "wrong", "is not on the server", "flowrl up")
        elif not workers:
            mend = "flowrl up" if server.is_embedded else f"flowrl up --worker-only --server {server.url} --pool {pool}"
            yield Finding(what, "wrong", "no worker is online", mend)
        else:
            yield Finding(what, "ok", f"{len(workers)} online: {', '.join(workers)}")
    deploy = "flowrl up" if server.is_embedded else "prefect deploy --all, in FlowRL's directory"
    for name, is_current in found.deployments.items():
        if is_current is None:
            yield Finding(name, "wrong", "is not on the server", "flowrl up")
        elif not is_current:
            yield Finding(name, "wrong", "is of another version of FlowRL", deploy)
        else:
            yield Finding(name, "ok", "deployed")
    if not found.automations:
        yield Finding("automation", "wrong", "nothing ends runs whose machine is gone", "flowrl up")
