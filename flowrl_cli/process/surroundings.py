"""The environment of a command: as the user has set it, and without the variables that FlowRL ignores."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flowrl_cli.process.account import furnish
from flowrl_cli.process.sizes import correct_size
from flowrl_cli.process.ulimits import widen
from flowrl_core.compiled import numerics
from tasks.orchestration.server import prefect_settings

__all__ = ["as_set", "settle"]

_dropped: dict[str, str] = {}


def settle() -> None:
    """Give this process a usable account, limits and terminal size, and remove variables that change its libraries.

    JAX and Prefect read their variables when they are imported: JAX fails on a value that it does not understand, and
    Prefect may behave differently.

    Raises:
        InputError: see `furnish`.
    """
    global _dropped
    widen()
    furnish(os.environ)
    correct_size(os.environ)
    prefect_settings.in_capitals(os.environ)
    before = dict(os.environ)
    prefect_settings.drop_modes(os.environ)
    numerics.drop_ignored(os.environ)
    _dropped = {name: value for name, value in before.items() if name not in os.environ}


def as_set() -> Mapping[str, str]:
    """Return the environment including the removed variables."""
    return {**_dropped, **os.environ}
