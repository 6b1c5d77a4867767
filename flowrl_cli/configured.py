"""The Prefect server that a person has configured, if any; waiting until a server answers; what it is."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from flowrl_core.errors import ServiceError
from tasks.orchestration.prefect_settings import decided, variable_of

__all__ = ["AUTH_VARIABLE", "KEY_VARIABLE", "check_server", "configured_url", "credentials", "opener", "wait_healthy"]

AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"
KEY_VARIABLE = "PREFECT_API_KEY"

_PATIENCE_S = 60.0
_POLL_S = 0.15
_ANSWER_S = 10.0
_MAJOR = "3"
"""Of Prefect's versions. Its own clients refuse a server of another one, at their first call."""


def configured_url() -> str | None:
    """The API URL that the environment, a profile or a settings file names for Prefect; None if nothing does."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url.rstrip("/")
    if not _may_be_configured():
        return None
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    return url.rstrip("/") if url else None


def credentials() -> dict[str, str]:
    """How Prefect is told to reach a configured server besides its URL: variable -> value, secrets among them."""
    found = decided(os.environ, "connection")
    if _may_be_configured():
        from prefect.settings import get_current_settings

        found = decided(get_current_settings().to_environment_variables(exclude_unset=True), "connection")
    return {name: value for name, value in found.items() if value and name != variable_of("api.url")}


def wait_healthy(url: str, *, seconds: float = _PATIENCE_S) -> None:
    """Return as soon as the server answers.

    Raises:
        ServiceError: it was silent for `seconds`, or the URL cannot be one.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with opener(url).open(f"{url}/health", timeout=max(0.5, min(5.0, seconds))) as answer:
                if answer.status == 200:
                    return
                problem = f"HTTP {answer.status}"
        except (OSError, urllib.error.URLError) as exc:
            problem = str(getattr(exc, "reason", exc))
        except ValueError as exc:
            raise ServiceError(
                f"PREFECT_API_URL: {url!r} is no URL ({exc}). Write for example http://HOST:4200/api"
            ) from exc
        if time.monotonic() >= deadline:
            raise ServiceError(
                f"The Prefect server {url} did not answer for {seconds:.0f} s ({problem}). "
                "Start it, or correct or unset PREFECT_API_URL (then a local server is started)"
            )
        time.sleep(_POLL_S)


def check_server(url: str, secrets: dict[str, str]) -> None:
    """Nothing, if what answers there is Prefect's API, of a version that we speak, and lets us in.

    Args:
        secrets: as `credentials` has them.

    Raises:
        ServiceError: it is not, or does not.
    """
    request = urllib.request.Request(f"{url}/admin/version", headers=_headers(secrets))
    try:
        with opener(url).open(request, timeout=_ANSWER_S) as answer:
            version: Any = json.loads(answer.read(1_000))
    except urllib.error.HTTPError as exc:
        if exc.code in (401, 403):
            problem = "refuses these credentials" if secrets else "asks for a password"
            raise ServiceError(
                f"The Prefect server {url} {problem}: export {AUTH_VARIABLE}=USER:PASSWORD, the one it was started with"
            ) from exc
        version = None
    except ValueError:
        version = None
    except OSError as exc:
        raise ServiceError(f"The Prefect server {url} does not answer ({exc}): try again") from exc
    if not isinstance(version, str):
        raise ServiceError(f"{url} is not the API of a Prefect server: its URL ends with /api, as a rule")
    if version.partition(".")[0] != _MAJOR:
        raise ServiceError(f"The Prefect server {url} is of version {version}: use one of Prefect {_MAJOR}")


def _headers(secrets: dict[str, str]) -> dict[str, str]:
    if name := secrets.get(AUTH_VARIABLE):
        return {"Authorization": f"Basic {base64.b64encode(name.encode()).decode()}"}
    if key := secrets.get(KEY_VARIABLE):
        return {"Authorization": f"Bearer {key}"}
    return {}


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens URLs of the server: through the proxy that is set, but for this machine's own."""
    is_local = url.startswith(("http://127.0.0.1", "http://localhost"))
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_local else []))


def _may_be_configured() -> bool:
    """Whether Prefect, whose import takes two seconds, has to be asked: all places that may name a server are here."""
    home = Path(os.environ.get("PREFECT_HOME", "") or "~/.prefect").expanduser()
    if "PREFECT_PROFILE" in os.environ or "PREFECT_PROFILES_PATH" in os.environ or (home / "profiles.toml").exists():
        return True
    if any(Path(name).exists() for name in (".env", "prefect.toml")):
        return True
    project = Path("pyproject.toml")
    return project.exists() and "[tool.prefect" in project.read_text(errors="replace")
