"""The address that an embedded server listens on, and how URLs spell it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from flowrl_cli.server.machine import public_address
from flowrl_core.errors import InputError
from flowrl_core.this_machine import address_of, is_loopback

__all__ = ["LOOPBACK", "SERVER_AUTH_VARIABLE", "Address", "canonical", "choose_address", "in_url"]

LOOPBACK = "127.0.0.1"
SERVER_AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"

_LOOPBACKS = {"0.0.0.0": LOOPBACK, "::": "::1"}
"""Loopback address by wildcard address: a socket that listens on all of IPv6 does not accept IPv4."""


@dataclass(frozen=True)
class Address:
    """Host and port that a server listens on. `is_fixed`: the user asked for this port, so it must not change."""

    host: str
    port: int
    is_fixed: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def api(self) -> str:
        """The API URL for processes on this machine."""
        return f"http://{in_url(_LOOPBACKS.get(self.host, self.host))}:{self.port}/api"

    @property
    def ui(self) -> str:
        """The URL to open in a browser, also on another machine if the server accepts remote connections."""
        host = public_address(_family(self.host)) if self.host in _LOOPBACKS else self.host
        return f"http://{in_url(host)}:{self.port}"

    @property
    def is_free(self) -> bool:
        """Whether the port is free."""
        with socket.socket(_family(self.host)) as probe:
            # As the server does it: lingering connections of its predecessor do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError:
                return False
        return True

    def moved(self) -> Address:
        """Return the same host with a free port."""
        with socket.socket(_family(self.host)) as probe:
            probe.bind((self.host, 0))
            return Address(self.host, int(probe.getsockname()[1]))


def choose_address(host: str | None, port: int | None) -> Address:
    """Return the requested address; by default a free port that only this machine can reach.

    Raises:
        InputError: the address is not this machine's, the port is taken, or a server without a password would be
            reachable from other machines.
    """
    found = Address(canonical(host or LOOPBACK), port or 0, is_fixed=port is not None)
    if not found.is_loopback and not os.environ.get(SERVER_AUTH_VARIABLE):
        raise InputError(
            "--host",
            f"other machines reach {found.host}, and anyone who can reach the server can run programs here",
            f"export {SERVER_AUTH_VARIABLE}=USER:PASSWORD first; other commands and workers then need the same as "
            "PREFECT_API_AUTH_STRING",
        )
    try:
        if port is None:
            return found.moved()
        is_free = found.is_free
    except (OSError, UnicodeError) as exc:
        raise InputError(
            "--host", f"{host!r} is not an address of this machine ({exc})", "Use 0.0.0.0 for all"
        ) from exc
    if not is_free:
        raise InputError(
            "--port",
            f"nothing can listen on {found.host} port {port}",
            "Choose another port, or stop the process that uses it",
        )
    return found


def canonical(host: str) -> str:
    """Return the host in the spelling that is recorded, for inputs such as `[::1]`, `127.1`, `LOCALHOST`."""
    bare = host.strip().strip("[]").rstrip(".").lower()
    address = address_of(bare)
    return bare if address is None else str(address)


def in_url(host: str) -> str:
    """Return the host as URLs spell it."""
    return f"[{host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    """Return IPv4 or IPv6, whichever the host name resolves to first."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
