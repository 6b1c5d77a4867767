"""The identity and the address of this machine among those that share a home."""

from __future__ import annotations

import os
import re
import socket
from hashlib import sha256
from pathlib import Path

from flowrl_core.errors import InputError

__all__ = ["MACHINE_VARIABLE", "host_name", "machine_id", "public_address"]

MACHINE_VARIABLE = "FLOWRL_MACHINE"

_MACHINE_ID = Path("/etc/machine-id")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ANYWHERE = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Reserved addresses that no machine has: looking up the route to them sends nothing."""


def machine_id() -> str:
    """Return the machine's identifier: FLOWRL_MACHINE, else a hash of the system's machine id, else the host name.

    Raises:
        InputError: FLOWRL_MACHINE cannot be part of a file name.
    """
    if name := os.environ.get(MACHINE_VARIABLE):
        if not _NAME.fullmatch(name):
            raise InputError(MACHINE_VARIABLE, f"{name!r} is not a valid name", "Use letters, digits, '.', - and _")
        return name
    try:
        given = _MACHINE_ID.read_text(encoding="utf-8").strip()
    except OSError:
        given = ""
    # A hash, since the machine id itself is confidential.
    return sha256(f"flowrl {given}".encode()).hexdigest()[:12] if given else host_name()


def host_name() -> str:
    """Return the host name."""
    return socket.gethostname()


def public_address(family: socket.AddressFamily = socket.AF_INET) -> str:
    """Return the address by which other machines reach this one, as far as it can tell; else the host name."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE[family])
            return str(probe.getsockname()[0])
        except OSError:
            return host_name()
