"""The Prefect server that a person has configured, if any, and where; waiting until a server answers; what it is."""

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
"""Names certificates for what is asked over TLS, by whichever library."""
_DRIVERS = ("postgresql+asyncpg", "sqlite+aiosqlite")
_PATIENCE_S = 60.0
_POLL_S = 0.15
_ANSWER_S = 10.0
_SILENT_S = 2.0
"""Of a wait for a server that is not yet worth a line."""
_SHORT_S = 5.0
"""A wait that is not worth a line at all."""
_HOPELESS_S = 10.0
"""How long what no wait cures is waited for nevertheless: a machine that starts has no names at first."""


@dataclass(frozen=True)
class Configured:
    """A server that a person has named.

    Attributes:
        where: what names it.
        forget: what makes that name it no more, as an instruction.
    """

    url: str
    where: str
    forget: str

    @classmethod
    def by_option(cls, url: str) -> Configured:
        """The one that `--server` names."""
        return cls(_tidy(url), "--server", "correct --server")


def configured() -> Configured | None:
    """The server that the environment, a profile or a settings file names for Prefect; None if nothing does.

    Raises:
        InputError: Prefect's settings cannot be read.
    """
    for setting in found_settings():
        if setting.variable == URL_VARIABLE:
            url = _tidy(str(setting.value or ""))
            # Named to be none, it is none, whatever comes after.
            return Configured(url, setting.where, setting.forget) if url else None
    return None


def credentials() -> dict[str, str]:
    """How Prefect is told to reach a configured server besides its URL: variable -> value, secrets among them.

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
    """Nothing, if Prefect can read its settings, every client its certificates, and a server its database's URL.

    (Prefect's import takes two seconds: not where nothing is set.)

    Raises:
        InputError: it cannot.
    """
    if any(setting.variable != "PREFECT_HOME" for setting in found_settings()):
        read_settings()
    credentials()
    for variable, value in decided(os.environ, "server").items():
        if variable.endswith("DATABASE_CONNECTION_URL"):
            _check_database(variable, value)


def wait_healthy(server: Configured | str, *, seconds: float = _PATIENCE_S) -> None:
    """Return as soon as the server answers; after two seconds one that is configured is said to be waited for.

    Args:
        server: a configured one, or the URL of one that was started here.

    Raises:
        ServiceError: it was silent for `seconds` (less, if waiting cannot help), or the URL cannot be one.
    """
    connection = {} if isinstance(server, str) else credentials()
    began = time.monotonic()
    is_said = isinstance(server, str) or seconds <= _SHORT_S
    while True:
        # The first is short, so that it can be said what is waited for.
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
    """The version of the Prefect server, if its API is what answers there, we speak its version, and it lets us in.

    Of Prefect Cloud, which has none, the word `cloud`.

    Args:
        connection: as `credentials` has it.

    Raises:
        ServiceError: it is not, or does not.
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
    """What the server answers to a GET, or to a POST of the body as JSON.

    As Prefect's clients would ask: with its password, its other headers and the certificates that it trusts.

    Args:
        connection: as `credentials` has it.

    Raises:
        NoAnswerError, ValueError: as `fetch`.
    """
    try:
        others = json.loads(connection.get(variable_of("client.custom_headers"), "{}"))
    except ValueError:
        others = {}  # Prefect says so itself
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
    """By what Prefect's clients ask Cloud, too: it has neither `/admin/version` nor passwords, but keys."""
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
    """Why the server does not answer, and whether that may pass; None if it does."""
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
        # What asks for a password answers: `check_server` says so. Of Cloud it is not known what it has there.
        if status in (200, 401, 403) or (status < 500 and is_cloud(url, connection)):
            return None
        problem, is_passing = f"HTTP {status}", status >= 500
        if not is_passing and not url.endswith("/api"):
            problem += "; the URL of a Prefect server usually ends with /api"
    through = proxy_for(url)
    return f"{problem}, through the proxy {through}" if through else problem, is_passing


def _check_certificates(variable: str, file: str | None) -> None:
    """Clients load them also for addresses without TLS, and name neither the file nor the variable if they cannot."""
    try:
        if file:
            ssl.create_default_context(cafile=file)
    except OSError as exc:  # of which those of TLS are
        problem = f"{file!r} cannot be read as a certificate file ({exc.strerror or exc})"
        raise InputError(variable, problem, f"Name a PEM certificate file, or unset {variable}") from exc


def _check_database(variable: str, url: str) -> None:
    """Of what the server makes of it only its first log tells, after it was started."""
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
    """The URL as all clients read it: without blanks and slashes around it, its scheme in small letters."""
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
