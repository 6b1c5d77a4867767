"""The Prefect server that a person has configured, if any, and where; waiting until a server answers; what it is."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrl_cli.fetching import Answer, NoAnswerError, fetch
from flowrl_cli.versions import is_cloud, misfit
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.proxies import proxy_for
from tasks.orchestration.prefect_settings import decided, is_prefects, variable_of

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
    "readable_settings",
    "wait_healthy",
]

AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"
KEY_VARIABLE = "PREFECT_API_KEY"
URL_VARIABLE = "PREFECT_API_URL"

_CERTIFICATES = "SSL_CERT_FILE"
"""Names certificates for what is asked over TLS, by whichever library."""
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
        return cls(url.rstrip("/"), "--server", "correct --server")


def configured() -> Configured | None:
    """The server that the environment, a profile or a settings file names for Prefect; None if nothing does.

    Raises:
        InputError: Prefect's settings cannot be read.
    """
    if url := os.environ.get(URL_VARIABLE):
        return _by_environment(url)
    if not _may_be_configured():
        return None
    with readable_settings():
        return _by_settings()


def credentials() -> dict[str, str]:
    """How Prefect is told to reach a configured server besides its URL: variable -> value, secrets among them.

    Raises:
        InputError: Prefect's settings, or the certificates that they or `SSL_CERT_FILE` name, cannot be read.
    """
    found = decided(os.environ, "connection")
    if _may_be_configured():
        with readable_settings():
            from prefect.settings import get_current_settings

            settings = get_current_settings()
        found = decided(settings.to_environment_variables(exclude_unset=True), "connection")
    for variable in (variable_of("api.ssl_cert_file"), _CERTIFICATES):
        _check_certificates(variable, found.get(variable) or os.environ.get(variable))
    return {name: value for name, value in found.items() if value and name != variable_of("api.url")}


def check_settings() -> None:
    """Nothing, if Prefect can read its settings, and every client the certificates that it is told to trust.

    (Prefect's import takes two seconds: not where nothing is set.)

    Raises:
        InputError: it cannot.
    """
    if any(is_prefects(name) and name != "PREFECT_HOME" for name in os.environ) or _may_be_configured():
        # Prefect prints the same, in its own words.
        with readable_settings(), contextlib.redirect_stderr(io.StringIO()):
            from prefect.settings import get_current_settings

            get_current_settings()
    credentials()


@contextlib.contextmanager
def readable_settings() -> Iterator[None]:
    """Within the block Prefect, which reads its settings when it is imported, says in words what is wrong with them.

    Raises:
        InputError: a file or variable cannot be read.
    """
    try:
        yield
    except ValueError as exc:  # of which those of pydantic's settings are
        problem = " ".join(line.strip() for line in str(exc).splitlines()[:3])
        raise InputError("Prefect's settings", problem, "Correct the variable or file") from exc


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
        problem = "refuses these credentials" if _headers(connection) else "asks for a password"
        raise ServiceError(
            f"The Prefect server {url} {problem}: export {AUTH_VARIABLE}=USER:PASSWORD, the one it was started with"
        )
    if answer.status >= 500:
        raise ServiceError(f"The Prefect server {url} answers HTTP {answer.status}: its log says why")
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
        raise ServiceError(f"Prefect Cloud asks for a key: export {KEY_VARIABLE}=KEY, or `prefect cloud login`")
    try:
        status = ask(f"{url}/work_pools/gpu", connection, seconds=_ANSWER_S).status
    except NoAnswerError as exc:
        raise ServiceError(f"Prefect Cloud does not answer at {url} ({exc}): try again") from exc
    if status in (401, 403):
        raise ServiceError(
            f"Prefect Cloud refuses the key for {url}: check {KEY_VARIABLE} and the workspace of the URL"
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
            f"{where}: {_shown(url)!r} is no URL ({exc}). Write for example http://HOST:4200/api"
        ) from exc
    else:
        # What asks for a password answers: `check_server` says so. Of Cloud it is not known what it has there.
        if status in (200, 401, 403) or (status < 500 and is_cloud(url, connection)):
            return None
        problem, is_passing = f"HTTP {status}", status >= 500
    through = proxy_for(url)
    return f"{problem}, asked through the proxy {through}" if through else problem, is_passing


def _check_certificates(variable: str, file: str | None) -> None:
    """Clients load them also for addresses without TLS, and name neither the file nor the variable if they cannot."""
    try:
        if file:
            ssl.create_default_context(cafile=file)
    except OSError as exc:  # of which those of TLS are
        problem = f"{file!r} cannot be read as certificates ({exc.strerror or exc})"
        raise InputError(variable, problem, f"Name a file of certificates (PEM), or unset {variable}") from exc


def _shown(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


def _named(server: Configured | str) -> str:
    if isinstance(server, str):
        return f"Prefect server {server}"
    return f"Prefect server {server.url} (of {server.where})"


def _mend(server: Configured | str) -> str:
    if isinstance(server, str) or server == Configured.by_option(server.url):
        return "Start it, or correct its URL"
    return f"Start it, or correct its URL, or {server.forget} (then a local server is started)"


def _by_environment(url: str) -> Configured:
    return Configured(url.rstrip("/"), URL_VARIABLE, f"unset {URL_VARIABLE}")


def _by_settings() -> Configured | None:
    """As Prefect's own sources of settings say, in their order."""
    from prefect.settings.models.api import APISettings
    from pydantic_settings import InitSettingsSource

    unused = InitSettingsSource(APISettings, {})
    for source in APISettings.settings_customise_sources(APISettings, unused, unused, unused, unused):
        url = source().get("url")
        if url is None:
            continue
        if not isinstance(url, str) or not url:
            return None  # named to be none, whatever comes after
        where, forget = _source(source)
        return Configured(url.rstrip("/"), where, forget)
    return None


def _source(source: Any) -> tuple[str, str]:
    """What one of Prefect's sources is called, and how it is rid of the URL."""
    match type(source).__name__:
        case "FilteredDotEnvSettingsSource":
            path = Path(str(source.env_file)).absolute()
            return f"{URL_VARIABLE} in {path}", f"remove {URL_VARIABLE} from {path}"
        case "PrefectTomlConfigSettingsSource" | "PyprojectTomlConfigSettingsSource":
            path = Path(str(source.toml_file_path)).absolute()
            table = ".".join(source.toml_table_header)
            return f"[{table}] in {path}", f"remove url from [{table}] in {path}"
        case "ProfileSettingsTomlLoader":
            from prefect.context import get_settings_context

            name = get_settings_context().profile.name
            where = f"Prefect's profile {name} in {source.profiles_path}"
            return where, f"`prefect --profile {name} config unset {URL_VARIABLE}`"
    return URL_VARIABLE, f"unset {URL_VARIABLE}"


def _may_be_configured() -> bool:
    """Whether Prefect, whose import takes two seconds, has to be asked: all places that may name a server are here."""
    home = Path(os.environ.get("PREFECT_HOME", "") or "~/.prefect").expanduser()
    if "PREFECT_PROFILE" in os.environ or "PREFECT_PROFILES_PATH" in os.environ or (home / "profiles.toml").exists():
        return True
    if any(name.upper() == URL_VARIABLE != name for name in os.environ):
        return True
    if any(Path(name).exists() for name in (".env", "prefect.toml")):
        return True
    project = Path("pyproject.toml")
    return project.exists() and "[tool.prefect" in project.read_text(errors="replace")
