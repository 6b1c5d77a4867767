"""This machine among those that share a home."""

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
"""Addresses that are nobody's: asking for the way to them sends nothing."""


def machine_id() -> str:
    """What tells this machine from others: FLOWRL_MACHINE, else what the system was given at its installation.

    Raises:
        InputError: FLOWRL_MACHINE cannot be part of a file's name.
    """
    if name := os.environ.get(MACHINE_VARIABLE):
        if not _NAME.fullmatch(name):
            raise InputError(MACHINE_VARIABLE, f"{name!r} is not a valid name", "Use letters, digits, '.', - and _")
        return name
    try:
        given = _MACHINE_ID.read_text(encoding="utf-8").strip()
    except OSError:
        given = ""
    # Not the number itself, which is nobody else's business.
    return sha256(f"flowrl {given}".encode()).hexdigest()[:12] if given else host_name()


def host_name() -> str:
    """The name that people know the machine by."""
    return socket.gethostname()


def public_address(family: socket.AddressFamily = socket.AF_INET) -> str:
    """The address by which other machines reach this one, as far as it can tell; else its name."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE[family])
            return str(probe.getsockname()[0])
        except OSError:
            return host_name()
