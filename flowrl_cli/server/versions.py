"""The Prefect servers that FlowRL works with: tested versions, and Prefect Cloud, which has no version."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from packaging.version import InvalidVersion, Version

from tasks.orchestration.server.prefect_settings import variable_of

__all__ = ["is_cloud", "misfit", "ui_of_cloud", "warning"]

_CLOUD = "https://api.prefect.cloud/api"
_CLOUD_UI = "https://app.prefect.cloud"
_OLDEST = Version("3.8.5")
"""Older servers reject fields that the clients of 3.8.8 send; see docs/operations.md."""


def is_cloud(url: str, connection: Mapping[str, str]) -> bool:
    """Whether the URL belongs to Prefect Cloud, by the rule of Prefect's own clients."""
    return url.startswith(connection.get(variable_of("cloud.api_url"), _CLOUD))


def ui_of_cloud(url: str) -> str:
    """Return the browser URL of the workspace for a Prefect Cloud API URL."""
    return url.replace(_CLOUD, _CLOUD_UI).replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")


def misfit(text: str) -> str:
    """Return why FlowRL does not work with a server of this version; empty if it works or is untested."""
    try:
        theirs = Version(text)
    except InvalidVersion:
        return ""  # a custom build
    ours = Version(version("prefect"))
    if theirs.major != ours.major:
        return f"use a server of Prefect {ours.major}"
    return f"use {_OLDEST} or later, best {ours}" if theirs < _OLDEST else ""


def warning(text: str) -> str:
    """Return the remark of `flowrl doctor` on a supported server version."""
    ours = version("prefect")
    if text == "cloud":
        return f"Prefect Cloud, which was not tried; FlowRL is tested with a server of {ours}"
    return text if text == ours else f"{text}; FlowRL is tested in full with {ours}"
