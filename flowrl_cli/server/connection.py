"""This process's Prefect clients: connected to a server with its secrets, and with time limits where people wait."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from http.client import CONFLICT

from flowrl_cli.server.address import SERVER_AUTH_VARIABLE
from flowrl_cli.server.configured import AUTH_VARIABLE, credentials
from flowrl_cli.server.prefect_sources import read_settings
from flowrl_cli.server.record import Server
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.proxies import bypass_proxies, check_proxies
from flowrl_core.web_addresses import why_unreachable
from tasks.orchestration.server.prefect_settings import CLIENT, NO_CONNECTION, variable_of

__all__ = ["asking", "connected", "secrets_of"]

_SILENT_S = 5.0
_ANSWER_S = 20.0
_MORE_TRIES = 2
"""With Prefect's own number of retries, a hung server would be waited for in silence for six minutes."""


@contextlib.contextmanager
def connected(server: Server, limits: Mapping[str, float] | None = None) -> Iterator[None]:
    """Within the block, this process's Prefect clients talk to the server.

    Args:
        limits: more Prefect settings. (Changing them in a block of their own would lose the secrets.)

    Raises:
        InputError: the server asks for a password and none is set; the named proxy is not supported; or Prefect's
            settings cannot be read.
    """
    read_settings()
    from prefect.settings import temporary_settings

    bypass_proxies(os.environ, server.url)
    check_proxies()
    others = NO_CONNECTION if server.is_embedded else {}
    own = {**others, **secrets_of(server), variable_of("api.url"): server.url}
    with temporary_settings({**CLIENT, **own, **(limits or {})}):
        yield


@contextlib.contextmanager
def asking(server: Server, what: str) -> Iterator[None]:
    """`connected`, for work that a person waits for: reports a remote server that takes long.

    Args:
        what: describes the work in the block.

    Raises:
        InputError: as `connected`.
        ServiceError: the server is gone, or rejects a request.
    """
    from httpx import HTTPStatusError, TransportError

    limits = {variable_of("api.request_timeout"): _ANSWER_S, variable_of("client.max_retries"): _MORE_TRIES}
    longest = _ANSWER_S * (1 + _MORE_TRIES)
    line = f"waiting for the Prefect server {server.url}: {what}, at most {longest:.0f} s per response ..."
    told = threading.Timer(_SILENT_S, lambda: print(line, file=sys.stderr, flush=True))
    told.daemon = True
    try:
        with connected(server, None if server.is_embedded else limits):
            if not server.is_embedded:
                told.start()
            yield
    except TransportError as exc:
        why, _ = why_unreachable(exc)
        raise ServiceError(f"the Prefect server {server.url} no longer answers ({what}): {why}") from exc
    except HTTPStatusError as exc:
        asked, said = exc.request.url.path, " ".join(exc.response.text.split())[:300]
        problem = f"answers {exc.response.status_code} to {asked}: {said}"
        remedy = "`flowrl doctor` shows its version"
        if exc.response.status_code == CONFLICT and "/deployments/" in asked:
            # The deployment's form, which an earlier release may have registered, lacks a parameter.
            remedy = "`flowrl up --redeploy` updates its deployments"
        raise ServiceError(f"the Prefect server {server.url} {problem}. {remedy}") from exc
    finally:
        told.cancel()


def secrets_of(server: Server) -> dict[str, str]:
    """Return the secrets with which this process authenticates to the server: variable -> secret.

    Raises:
        InputError: the server asks for a password, and none is set.
    """
    return _password(server.asks_for_password) if server.is_embedded else credentials()


def _password(is_asked: bool) -> dict[str, str]:
    """Return the password for an embedded server. It is stored nowhere, so this process's environment must have it.

    Raises:
        InputError: it is missing.
    """
    if not is_asked:
        return {}
    variable = SERVER_AUTH_VARIABLE if os.environ.get(SERVER_AUTH_VARIABLE) else AUTH_VARIABLE
    found = os.environ.get(variable, "")
    user, _, password = found.partition(":")
    if not user or not password:
        problem = "is not USER:PASSWORD" if found else "is not set, and the server of this home requires a password"
        raise InputError(variable, problem, f"export {variable}=USER:PASSWORD, the server's")
    return {AUTH_VARIABLE: found}
