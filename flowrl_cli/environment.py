"""The environment of what is started to outlive a command: servers and workers."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from flowrl_cli.address import LOOPBACK, SERVER_AUTH_VARIABLE
from flowrl_cli.configured import AUTH_VARIABLE, KEY_VARIABLE
from flowrl_cli.processes import MARK_VARIABLE
from flowrl_core.storage.layout import HOME_VARIABLE, Home

__all__ = ["bypass_proxies", "child_environment"]

_SETTINGS = {
    # A worker looks for runs every ten seconds by default; that would be the largest part of a dependant's wait.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # In memory, leases that are held when the server restarts would never be given back.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # Marking a deep queue as late locks the database for everybody else.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "3600",
    # The default writes pickles.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flowrl_core,tasks",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # Huge pages where the kernel has them by madvise: XLA asks for fresh memory at every call (glibc 2.35 and later).
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# What a person's environment says of another server must not reach ours.
_FOREIGN = (
    "PREFECT_API_URL",
    AUTH_VARIABLE,
    KEY_VARIABLE,
    SERVER_AUTH_VARIABLE,
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
)
# With this set (as many containers have it), and packages installed without bytecode, every run of every skill would
# compile all that it imports from source: half of its processor time to the first line.
_SLOW = ("PYTHONDONTWRITEBYTECODE",)


def child_environment(
    home: Home, prefect_home: Path, mark: str, url: str, secrets: Mapping[str, str]
) -> dict[str, str]:
    """This process's environment, with the home, the server and nothing of another server.

    Args:
        url: of the API that it shall talk to.
        secrets: how it identifies itself there; they stand nowhere but here.
    """
    kept = {name: value for name, value in os.environ.items() if name not in (*_FOREIGN, *_SLOW)}
    environment = {
        **_SETTINGS,
        **kept,
        **secrets,
        MARK_VARIABLE: mark,
        HOME_VARIABLE: str(home.root),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": url,
        "PREFECT__SERVER_FINAL": "1",
    }
    bypass_proxies(environment)
    return environment


def bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Let nothing ask a proxy for this machine."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in environment.get(name, "").split(",") if host]
        if LOOPBACK not in hosts:
            environment[name] = ",".join([*hosts, LOOPBACK])
