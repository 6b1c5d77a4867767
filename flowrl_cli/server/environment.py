"""The environment of what is started to outlive a command: servers and workers."""

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

# Huge pages where the kernel has them by madvise: XLA asks for fresh memory at every call (glibc 2.35 and later).
_OURS = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# With this set (as many containers have it), and packages installed without bytecode, every run of every skill would
# compile all that it imports from source: half of its processor time to the first line.
# (And what they print are logs: of UTF-8, and without what Python says of itself.)
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
    """This process's environment, with the home, the server, and of Prefect's settings only what is decided so.

    Args:
        url: of the API that it shall talk to.
        connection: how that is reached, secrets among it; they stand nowhere but here.
        serves: it is the server itself.
    """
    others = {name: value for name, value in os.environ.items() if not is_prefects(name) and name not in _OTHERS}
    if path := others.get("PYTHONPATH"):
        # What is started has another working directory. (An empty entry means that: nobody writes one on purpose.)
        others["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, path.split(os.pathsep))))
    own = {**decided(os.environ, "kept"), **(decided(os.environ, "server") if serves else {})}
    # An empty password, for one, is asked for by the server, and nobody can give it.
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
