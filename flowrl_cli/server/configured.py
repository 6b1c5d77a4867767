"""The Prefect server that the user has configured, if any: its settings, waiting for it, and checking it."""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowrl_cli.checks.variables import shown
from flowrl_cli.server.fetching import Answer, NoAnswerError, fetch
from flowrl_cli.server.prefect_sources import found_in_files, found_settings, read_settings
from flowrl_cli.server.versions import is_cloud, misfit
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.proxies import proxy_for
from tasks.orchestration.server.prefect_settings import decided, variable_of

__all__ = [
    "AUTH_VARIABLE",
    "KEY_VARIABLE",
    "URL_VARIABLE",
    "Configured",
    "ask",
    "check_server",
    "check_settings",
    "configured",
    "credentials",
    "wait_healthy",
]

AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"
KEY_VARIABLE = "PREFECT_API_KEY"
URL_VARIABLE = "PREFECT_API_URL"

_CERTIFICATES = "SSL_CERT_FILE"
"""The variable that names a certificate file for TLS connections, for every library."""
_DRIVERS = ("postgresql+asyncpg", "sqlite+aiosqlite")
_PATIENCE_S = 60.0
_POLL_S = 0.15
_ANSWER_S = 10.0
_SILENT_S = 2.0
"""A wait is reported once it is longer than this."""
_SHORT_S = 5.0
"""A wait with a limit this short is never reported."""
_HOPELESS_S = 10.0
"""Limit of a wait for problems that waiting does not fix, except on a booting machine: it has no DNS at first."""


@dataclass(frozen=True)
class Configured:
    """A server that the user has configured.

    Attributes:
        where: the setting that names it.
        forget: an instruction that removes that setting.
    """

    url: str
    where: str
    forget: str

    @classmethod
    def by_option(cls, url: str) -> Configured:
        """Return the server that `--server` names."""
        return cls(_tidy(url), "--server", "correct --server")


def configured() -> Configured | None:
    """Return the server that the environment, a profile or a settings file names for Prefect; None if nothing does.

    Raises:
        InputError: Prefect's settings cannot be read.
    """
    for setting in found_settings():
        if setting.variable == URL_VARIABLE:
            url = _tidy(str(setting.value or ""))
            # An empty URL means no server, whatever later settings say.
            return Configured(url, setting.where, setting.forget) if url else None
    return None


def credentials() -> dict[str, str]:
    """Return the settings with which Prefect reaches a configured server besides its URL: variable -> value.

    They include secrets.

    Raises:
        InputError: Prefect's settings, or the certificates that they or `SSL_CERT_FILE` name, cannot be read.
    """
    found = decided(os.environ, "connection")
    if found_in_files():
        found = decided(read_settings().to_environment_variables(exclude_unset=True), "connection")
    for variable in (variable_of("api.ssl_cert_file"), _CERTIFICATES):
        _check_certificates(variable, found.get(variable) or os.environ.get(variable))
    return {name: value for name, value in found.items() if value and name != variable_of("api.url")}


def check_settings() -> None:
    """Check that Prefect can read its settings, clients can read their certificates, and the database URL is valid.

    (Prefect takes two seconds to import; the import is skipped if nothing is set.)

    Raises:
        InputError: a check failed.
    """
    if any(setting.variable != "PREFECT_HOME" for setting in found_settings()):
        read_settings()
    credentials()
    for variable, value in decided(os.environ, "server").items():
        if variable.endswith("DATABASE_CONNECTION_URL"):
            _check_database(variable, value)


def wait_healthy(server: Configured | str, *, seconds: float = _PATIENCE_S) -> None:
    """Return as soon as the server answers; after two seconds, report that a configured server is being waited for.

    Args:
        server: a configured server, or the URL of one that was started here.

    Raises:
        ServiceError: it was silent for `seconds` (less if waiting cannot help), or the URL is invalid.
    """
    connection = {} if isinstance(server, str) else credentials()
    began = time.monotonic()
    is_said = isinstance(server, str) or seconds <= _SHORT_S
    while True:
        # The first request has a short limit, so that the wait can be reported.
        found = _what_is_wrong(server, connection, seconds=max(0.5, min(5.0 if is_said else _SILENT_S, seconds)))
        if found is None:
            return
        problem, is_passing = found
        waited = time.monotonic() - began
        if waited >= (seconds if is_passing else min(seconds, _HOPELESS_S)):
            raise ServiceError(f"The {_named(server)} did not answer for {waited:.0f} s ({problem}). {_mend(server)}")
        if not is_said and waited >= _SILENT_S:
            is_said = True
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds - waited))
            print(f"waiting for the {_named(server)} until {until}: {problem} ...", file=sys.stderr, flush=True)
        time.sleep(_POLL_S)


def check_server(url: str, connection: Mapping[str, str]) -> str:
    """Return the version of the Prefect server, or `cloud` for Prefect Cloud, which has none.

    Args:
        connection: see `credentials`.

    Raises:
        ServiceError: it is not the API of a Prefect server, its version is not supported, or it denies access.
    """
    if is_cloud(url, connection):
        return _check_cloud(url, connection)
    try:
        answer = ask(f"{url}/admin/version", connection, seconds=_ANSWER_S)
    except NoAnswerError as exc:
        raise ServiceError(f"The Prefect server {url} does not answer ({exc}): try again") from exc
    if answer.status in (401, 403):
        problem = "rejected these credentials" if _headers(connection) else "requires a password"
        raise ServiceError(
            f"The Prefect server {url} {problem}: export {AUTH_VARIABLE}=USER:PASSWORD, those it was started with"
        )
    if answer.status >= 500:
        raise ServiceError(f"The Prefect server {url} answers HTTP {answer.status}: see its log")
    try:
        version: Any = json.loads(answer.body) if answer.status == 200 else None
    except (ValueError, RecursionError):
        version = None
    if not isinstance(version, str):
        hint = "check its host and port" if url.endswith("/api") else "its URL usually ends with /api"
        raise ServiceError(f"{url} is not the API of a Prefect server: {hint}")
    if mend := misfit(version):
        raise ServiceError(f"The Prefect server {url} is of version {version}: {mend}")
    return version


def ask(url: str, connection: Mapping[str, str], *, seconds: float, body: object = None) -> Answer:
    """Return the server's answer to a GET, or to a POST of the body as JSON.

    The request is like those of Prefect's clients: with password, custom headers and trusted certificates.

    Args:
        connection: see `credentials`.

    Raises:
        NoAnswerError, ValueError: as `fetch`.
    """
    try:
        others = json.loads(connection.get(variable_of("client.custom_headers"), "{}"))
    except ValueError:
        others = {}  # Prefect reports this itself
    headers = {**{str(name): str(value) for name, value in dict(others).items()}, **_headers(connection)}
    if body is not None:
        headers["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()

    def certificates() -> ssl.SSLContext:
        if connection.get(variable_of("api.tls_insecure_skip_verify"), "").lower() in ("1", "true", "yes", "on"):
            return ssl._create_unverified_context()
        return ssl.create_default_context(cafile=connection.get(variable_of("api.ssl_cert_file")))

    return fetch(url, seconds=seconds, headers=headers, certificates=certificates, body=data)


def _check_cloud(url: str, connection: Mapping[str, str]) -> str:
    """Check with a request that Prefect's clients also send: Cloud has no `/admin/version`, and keys, not passwords."""
    if not connection.get(KEY_VARIABLE):
        raise ServiceError(f"Prefect Cloud requires a key: export {KEY_VARIABLE}=KEY, or `prefect cloud login`")
    try:
        status = ask(f"{url}/work_pools/gpu", connection, seconds=_ANSWER_S).status
    except NoAnswerError as exc:
        raise ServiceError(f"Prefect Cloud does not answer at {url} ({exc}): try again") from exc
    if status in (401, 403):
        raise ServiceError(
            f"Prefect Cloud rejected the key for {url}: check {KEY_VARIABLE} and the workspace of the URL"
        )
    if status not in (200, 404):
        raise ServiceError(
            f"Prefect Cloud answers HTTP {status} at {url}: check the URL (`prefect cloud workspace ls`)"
        )
    return "cloud"


def _headers(connection: Mapping[str, str]) -> dict[str, str]:
    if name := connection.get(AUTH_VARIABLE):
        return {"Authorization": f"Basic {base64.b64encode(name.encode()).decode()}"}
    if key := connection.get(KEY_VARIABLE):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _what_is_wrong(
    server: Configured | str, connection: Mapping[str, str], *, seconds: float
) -> tuple[str, bool] | None:
    """Return why the server does not answer, and whether that may pass; None if it does answer."""
    url, where = (server, URL_VARIABLE) if isinstance(server, str) else (server.url, server.where)
    try:
        status = ask(f"{url}/health", connection, seconds=seconds).status
    except NoAnswerError as exc:
        problem, is_passing = str(exc), exc.is_passing
    except ValueError as exc:
        raise ServiceError(
            f"{where}: {_shown(url)!r} is not a URL ({exc}). Write, for example, http://HOST:4200/api"
        ) from exc
    else:
        # A server that asks for a password answers; `check_server` reports that. What Cloud serves here is unknown.
        if status in (200, 401, 403) or (status < 500 and is_cloud(url, connection)):
            return None
        problem, is_passing = f"HTTP {status}", status >= 500
        if not is_passing and not url.endswith("/api"):
            problem += "; the URL of a Prefect server usually ends with /api"
    through = proxy_for(url)
    return f"{problem}, through the proxy {through}" if through else problem, is_passing


def _check_certificates(variable: str, file: str | None) -> None:
    """Clients load certificates also for addresses without TLS, and their errors name neither file nor variable."""
    try:
        if file:
            ssl.create_default_context(cafile=file)
    except OSError as exc:  # includes SSLError
        problem = f"{file!r} cannot be read as a certificate file ({exc.strerror or exc})"
        raise InputError(variable, problem, f"Name a PEM certificate file, or unset {variable}") from exc


def _check_database(variable: str, url: str) -> None:
    """Otherwise a wrong URL shows up only in the server's first log, after the start."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        problem = "" if make_url(url).drivername in _DRIVERS else "has a driver that Prefect's server does not support"
    except (ArgumentError, ValueError):
        problem = "is not a URL"
    if problem:
        examples = " or ".join(f"{driver}://..." for driver in _DRIVERS)
        raise InputError(variable, f"{shown(variable, url)!r} {problem}", f"Write {examples}, or unset {variable}")


def _tidy(url: str) -> str:
    """Return the URL as all clients read it: without blanks and slashes around it, the scheme in lower case."""
    scheme, found, rest = url.strip().partition("://")
    return f"{scheme.lower()}{found}{rest.rstrip('/')}" if found else scheme


def _shown(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.partition('?')[0].rpartition('@')[2]}"


def _named(server: Configured | str) -> str:
    if isinstance(server, str):
        return f"Prefect server {server}"
    return f"Prefect server {server.url} (of {server.where})"


def _mend(server: Configured | str) -> str:
    if isinstance(server, str) or server == Configured.by_option(server.url):
        return "Start it, or correct its URL"
    return f"Start it, or correct its URL, or {server.forget} (then a local server is started)"
