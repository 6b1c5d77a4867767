"""URLs as people write them, and why a server is unreachable."""

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
"""OpenSSL's reasons if the peer does not speak TLS."""

Trouble = Literal["passing", "name", "tls"]
"""Whether retrying may help. It may for `name` too: some name servers report unknown names while offline."""


def web_address(url: str, schemes: Collection[str] = ("http", "https")) -> SplitResult:
    """Return the parts of a URL that every HTTP client can use.

    Args:
        schemes: the allowed schemes; proxies may have others.

    Raises:
        ValueError: says what is wrong, without repeating the URL.
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
    """Return why a request did not arrive, in words and as a kind."""
    # Clients wrap the system's error.
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
        ipaddress.IPv4Address(host)  # resolvers accept more spellings; HTTP clients do not
    elif not host.isascii():
        import idna

        idna.encode(host)
    elif ":" not in host and not all(host.removesuffix(".").split(".")):
        raise ValueError("its host has an empty part")


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__context__
