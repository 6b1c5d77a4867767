"""The account and the directory that a command runs in: Prefect and others want a home and a working directory."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from flowrl_core.errors import InputError
from flowrl_core.storage.layout import HOME_VARIABLE

__all__ = ["check_directory", "furnish"]


def furnish(environment: MutableMapping[str, str]) -> None:
    """Give an account whose home directory is of no use another one: FLOWRL_HOME/prefect. Nothing is made.

    So it is for a number without a name (`docker run --user`, `setpriv`), for an account of a service whose home
    directory does not exist or depends on the working directory, and for who took over another user's HOME. In one that
    can be entered but not written, only what is not there yet lies elsewhere.

    Raises:
        InputError: FLOWRL_HOME begins with the home directory that is of no use.
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
    """Nothing, if there is a working directory. Prefect's client asks for it, and so does what it imports.

    Raises:
        InputError: it was removed, or this user may not know where it is.
    """
    try:
        os.getcwd()
    except OSError as exc:
        problem = f"the directory in which this command was started was deleted, or is not accessible ({exc.strerror})"
        raise InputError("working directory", problem, "`cd` to an existing directory and try again") from exc


def _instead(environment: MutableMapping[str, str]) -> str:
    root = environment.get(HOME_VARIABLE) or ".flowrl"
    return str(Path(os.path.abspath(os.path.expanduser(root))) / "prefect")
