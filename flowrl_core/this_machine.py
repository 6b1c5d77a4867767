"""Whether a host is this machine: any spelling of loopback, its own names, the addresses of its interfaces."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["address_of", "is_loopback", "is_this_machine"]

_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_OLD_FORM = re.compile(r"[0-9a-fx.]+")
_HOSTS = Path("/etc/hosts")
_LOOK_UP_S = 2.0

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_this_machine(host: str) -> bool:
    """Whether a connection to the host reaches this machine.

    Names are looked up only if the first label is this machine's name: for other hosts, a name server that only the
    proxy can reach must cause no delay.

    Args:
        host: a name or an address as in URLs, with or without brackets, in any spelling of resolvers (`127.1`).
    """
    host = _bare(host)
    if is_loopback(host):
        return True
    address = address_of(host)
    if address is not None:
        return address.is_unspecified or address in set(_own_addresses())
    return host in set(_own_names()) or _is_own_full_name(host)


def is_loopback(host: str) -> bool:
    """Whether the host is loopback, in any spelling, so that only this machine can connect to it."""
    host = _bare(host)
    address = address_of(host)
    return address.is_loopback if address is not None else host in _NAMES or host.endswith(".localhost")


def address_of(text: str) -> _IP | None:
    """Return the IP address, in any spelling that resolvers accept (IPv4-mapped IPv6 as IPv4); None if it is none."""
    try:
        address: _IP = ipaddress.ip_address(text)
    except ValueError:
        if not _OLD_FORM.fullmatch(text):
            return None
        try:
            # Resolvers accept omitted, octal and hexadecimal parts.
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _bare(host: str) -> str:
    return host.strip("[]").partition("%")[0].rstrip(".").lower()


def _own_addresses() -> Iterator[_IP]:
    for found in psutil.net_if_addrs().values():
        for one in found:
            if one.family in (socket.AF_INET, socket.AF_INET6) and (
                address := address_of(one.address.partition("%")[0])
            ):
                yield address


def _own_names() -> Iterator[str]:
    """Yield the machine's name, and the names of its addresses in /etc/hosts."""
    yield socket.gethostname().lower()
    try:
        lines = _HOSTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    own = set(_own_addresses())
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        found = address_of(address)
        if found is not None and (found.is_loopback or found in own):
            yield from (name.lower() for name in names)


def _is_own_full_name(host: str) -> bool:
    """Whether the name is this machine's fully qualified name."""
    first, _, domain = host.partition(".")
    if not domain or first != socket.gethostname().lower().partition(".")[0]:
        return False
    found: list[_IP | None] = []

    def look_up() -> None:
        try:
            found.extend(address_of(str(one[4][0]).partition("%")[0]) for one in socket.getaddrinfo(host, None))
        except OSError:
            return

    asking = threading.Thread(target=look_up, daemon=True)
    asking.start()
    asking.join(_LOOK_UP_S)
    own = set(_own_addresses())
    return bool(found) and all(one is not None and (one.is_loopback or one in own) for one in found)
