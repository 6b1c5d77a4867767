"""The account and the directory that a command runs in: Prefect and others need a home and a working directory."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from flowrl_core.errors import InputError
from flowrl_core.storage.layout import HOME_VARIABLE

__all__ = ["check_directory", "furnish"]


def furnish(environment: MutableMapping[str, str]) -> None:
    """Set the home directory to FLOWRL_HOME/prefect for an account without a usable one. Creates nothing.

    Such accounts are a user id without a name (`docker run --user`, `setpriv`), a service account whose home directory
    is missing or relative to the working directory, and one that runs with another user's HOME. If the home directory
    can be entered but not written, only data that does not exist there yet is placed elsewhere.

    Raises:
        InputError: FLOWRL_HOME starts with `~`, and that home directory is unusable.
    """
    home = Path(os.path.expanduser("~"))
    if not (home.is_absolute() and os.path.isdir(home) and os.access(home, os.R_OK | os.X_OK)):
        if environment.get(HOME_VARIABLE, "").startswith("~"):
            remedy = f"Set {HOME_VARIABLE} to an absolute path"
            raise InputError(HOME_VARIABLE, "`~` is not a directory that this account can use", remedy)
        environment["HOME"] = _instead(environment)
        environment.setdefault("PREFECT_HOME", environment["HOME"])
    elif not os.access(home, os.W_OK):
        environment.setdefault("MPLCONFIGDIR", str(Path(_instead(environment)) / "matplotlib"))
        if not os.path.isdir(home / ".prefect"):
            environment.setdefault("PREFECT_HOME", _instead(environment))


def check_directory() -> None:
    """Check that there is a working directory; Prefect's client and the modules it imports need one.

    Raises:
        InputError: it was removed, or this user has no access to it.
    """
    try:
        os.getcwd()
    except OSError as exc:
        problem = f"the directory in which this command was started was deleted, or is not accessible ({exc.strerror})"
        raise InputError("working directory", problem, "`cd` to an existing directory and try again") from exc


def _instead(environment: MutableMapping[str, str]) -> str:
    root = environment.get(HOME_VARIABLE) or ".flowrl"
    return str(Path(os.path.abspath(os.path.expanduser(root))) / "prefect")
