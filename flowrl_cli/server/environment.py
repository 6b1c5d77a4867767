"""The environment of processes that outlive a command: servers and workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flowrl_cli.process.interpreter import usual_environment
from flowrl_cli.server.processes import MARK_VARIABLE
from flowrl_core.compiled.numerics import drop_ignored
from flowrl_core.proxies import bypass_proxies
from flowrl_core.storage.layout import HOME_VARIABLE, Home
from tasks.orchestration.server.prefect_settings import decided, given_beside, is_prefects

__all__ = ["child_environment"]

# Huge pages where the kernel offers them through madvise: XLA allocates fresh memory at every call (glibc >= 2.35).
_OURS = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Many containers set PYTHONDONTWRITEBYTECODE. With packages installed without bytecode, every run would then compile
# all its imports from source: half of its processor time up to the first line.
# (The others would change the logs: these are UTF-8, without Python's own diagnostics.)
_OTHERS = (
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONIOENCODING",
    "PYTHONMALLOCSTATS",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONVERBOSE",
)


def child_environment(
    home: Home, prefect_home: Path, mark: str, url: str, connection: Mapping[str, str], *, serves: bool = False
) -> dict[str, str]:
    """Return this process's environment with home and server added, and with only the allowed Prefect settings.

    Args:
        url: the API that the process talks to.
        connection: settings for reaching it, secrets included; they are stored nowhere else.
        serves: whether the process is the server itself.
    """
    others = {name: value for name, value in os.environ.items() if not is_prefects(name) and name not in _OTHERS}
    if path := others.get("PYTHONPATH"):
        # Started processes have another working directory. (An empty entry means that one: nobody wants it.)
        others["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, path.split(os.pathsep))))
    own = {**decided(os.environ, "kept"), **(decided(os.environ, "server") if serves else {})}
    # With an empty password, for example, the server would ask for one that nobody can give.
    own = {name: value for name, value in own.items() if value}
    environment = {
        **_OURS,
        **others,
        **given_beside(own),
        **own,
        **connection,
        MARK_VARIABLE: mark,
        HOME_VARIABLE: str(home.root),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": url,
        "PREFECT__SERVER_FINAL": "1",
    }
    drop_ignored(environment)
    usual_environment(environment)
    bypass_proxies(environment, url)
    return environment
