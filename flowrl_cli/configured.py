"""The Prefect server that a person has configured, if any, and waiting until a server answers."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from flowrl_core.errors import ServiceError

__all__ = ["configured_url", "wait_healthy"]

_PATIENCE_S = 60.0
_POLL_S = 0.15


def configured_url() -> str | None:
    """The API URL that the environment, a profile or a settings file names for Prefect; None if nothing does."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url.rstrip("/")
    if not _may_be_configured():
        return None
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    return url.rstrip("/") if url else None


def wait_healthy(url: str, *, seconds: float = _PATIENCE_S) -> None:
    """Return as soon as the server answers.

    Raises:
        ServiceError: it was silent for `seconds`, or the URL cannot be one.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with _opener(url).open(f"{url}/health", timeout=max(0.5, min(5.0, seconds))) as answer:
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


def _opener(url: str) -> urllib.request.OpenerDirector:
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
