"""Where an embedded server listens, and what others call it."""

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
"""By the address that stands for all: what listens on all of IPv6 does not listen on IPv4."""


@dataclass(frozen=True)
class Address:
    """Host and port that a server listens on. `is_fixed`: somebody asked for this port, so it must not move."""

    host: str
    port: int
    is_fixed: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def api(self) -> str:
        """The URL of the API for this machine's own processes."""
        return f"http://{in_url(_LOOPBACKS.get(self.host, self.host))}:{self.port}/api"

    @property
    def ui(self) -> str:
        """The URL that a person opens, on another machine too where the server lets them."""
        host = public_address(_family(self.host)) if self.host in _LOOPBACKS else self.host
        return f"http://{in_url(host)}:{self.port}"

    @property
    def is_free(self) -> bool:
        """Whether nobody listens there."""
        with socket.socket(_family(self.host)) as probe:
            # As the server does it: connections that linger from its predecessor do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError:
                return False
        return True

    def moved(self) -> Address:
        """The same host with a port that is free."""
        with socket.socket(_family(self.host)) as probe:
            probe.bind((self.host, 0))
            return Address(self.host, int(probe.getsockname()[1]))


def choose_address(host: str | None, port: int | None) -> Address:
    """The address that was asked for: by default a free port that only this machine can reach.

    Raises:
        InputError: it is not this machine's, the port is taken, or others could reach a server that asks for no
            password.
    """
    found = Address(canonical(host or LOOPBACK), port or 0, is_fixed=port is not None)
    if not found.is_loopback and not os.environ.get(SERVER_AUTH_VARIABLE):
        raise InputError(
            "host",
            f"other machines reach {found.host}, and anyone who can reach the server can run programs here",
            f"export {SERVER_AUTH_VARIABLE}=USER:PASSWORD first; other commands and workers then need the same as "
            "PREFECT_API_AUTH_STRING",
        )
    try:
        if port is None:
            return found.moved()
        is_free = found.is_free
    except (OSError, UnicodeError) as exc:
        raise InputError("host", f"{host!r} is not an address of this machine ({exc})", "Use 0.0.0.0 for all") from exc
    if not is_free:
        raise InputError(
            "port",
            f"nothing can listen on {found.host} port {port}",
            "Choose another port, or stop the process that uses it",
        )
    return found


def canonical(host: str) -> str:
    """The host as it is recorded, however it was spelled: `[::1]`, `127.1`, `LOCALHOST`."""
    bare = host.strip().strip("[]").rstrip(".").lower()
    address = address_of(bare)
    return bare if address is None else str(address)


def in_url(host: str) -> str:
    """The host as URLs hold it."""
    return f"[{host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    """IPv4 or IPv6; the first that the host's name has."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
