"""Addresses of web servers as people write them, and why one cannot be reached."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Collection, Iterator
from typing import Literal
from urllib.parse import SplitResult, urlsplit

__all__ = ["Trouble", "web_address", "why_unreachable"]

_FOUR_NUMBERS = re.compile(r"\d+(\.\d+){3}")
_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"}
)
"""What OpenSSL calls it where the other side does not answer in TLS."""

Trouble = Literal["passing", "name", "tls"]
"""Whether waiting may help. It may for an unknown name, too: some name servers say so while there is no network."""


def web_address(url: str, schemes: Collection[str] = ("http", "https")) -> SplitResult:
    """The parts of the URL, if every HTTP client can ask it; of a proxy, which may have other schemes, ask by it.

    Raises:
        ValueError: in words what is wrong with it, which do not repeat it.
    """
    if not url.isprintable() or " " in url:
        raise ValueError("it contains spaces or control characters")
    parts = urlsplit(url)
    if parts.scheme.lower() not in schemes or not parts.hostname:
        raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")
    parts.port  # noqa: B018 - reading it is what checks it
    _check_host(parts.hostname)
    return parts


def why_unreachable(exc: BaseException) -> tuple[str, Trouble]:
    """What kept a request from arriving, in words and by its kind."""
    # Clients wrap what the system says.
    reason = next((one for one in reversed(list(_chain(exc))) if isinstance(one, OSError)), exc)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {reason.verify_message}", "tls"
    if isinstance(reason, ssl.SSLError) and reason.reason in _NO_TLS:
        return f"it does not speak TLS, which https:// requires; perhaps it should be http:// ({reason})", "tls"
    if isinstance(reason, socket.gaierror):
        return str(reason), "name" if reason.errno == socket.EAI_NONAME else "passing"
    if isinstance(reason, TimeoutError) and not reason.errno:
        return "no answer in time", "passing"
    return str(reason) or type(reason).__name__, "passing"


def _check_host(host: str) -> None:
    if _FOUR_NUMBERS.fullmatch(host):
        if not host.isascii():
            raise ValueError("its address has digits that are not 0 to 9")
        ipaddress.IPv4Address(host)  # resolvers read more; the clients of HTTP do not
    elif not host.isascii():
        import idna

        idna.encode(host)
    elif ":" not in host and not all(host.removesuffix(".").split(".")):
        raise ValueError("its host has an empty part")


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__context__
