"""The account that a command runs under: Prefect and others want a home directory, and not every account has one."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from flowrl_core.storage.layout import HOME_VARIABLE

__all__ = ["furnish"]


def furnish(environment: MutableMapping[str, str]) -> None:
    """Give an account whose home directory is of no use another one: FLOWRL_HOME/prefect. Nothing is made.

    So it is for a number without a name (`docker run --user`, `setpriv`), for an account of a service whose home
    directory does not exist, and for who took over another user's HOME. In one that can be entered but not written,
    only what is not there yet lies elsewhere.
    """
    own = str(Path(os.path.abspath(environment.get(HOME_VARIABLE) or ".flowrl")) / "prefect")
    home = Path(os.path.expanduser("~"))
    if not (os.path.isdir(home) and os.access(home, os.R_OK | os.X_OK)):
        environment["HOME"] = own
        environment.setdefault("PREFECT_HOME", own)
    elif not os.access(home, os.W_OK):
        environment.setdefault("MPLCONFIGDIR", str(Path(own) / "matplotlib"))
        if not (home / ".prefect").is_dir():
            environment.setdefault("PREFECT_HOME", own)
