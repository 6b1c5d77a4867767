"""Proxies from environment variables: which one a URL uses, if any, and which are unusable."""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from flowrl_core.errors import InputError
from flowrl_core.this_machine import address_of, is_this_machine
from flowrl_core.web_addresses import web_address

__all__ = ["Proxy", "bypass_proxies", "check_proxies", "is_direct", "named_proxies", "proxy_for"]

_LOCAL = ("localhost", ".localhost", "127.0.0.1", "::1")
_SCHEMES = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]+)(?::(?P<port>\d*))?")
_NAME = re.compile(r"[a-z0-9_*-]+(?:\.[a-z0-9_*-]+)*")


@dataclass(frozen=True)
class Proxy:
    """A proxy set by an environment variable, as written there (it may contain a password)."""

    variable: str
    written: str = field(repr=False)

    @property
    def url(self) -> str:
        """The address with a scheme, password included."""
        bare = self.written.strip()
        return bare if "://" in bare else f"http://{bare}"

    def __str__(self) -> str:
        return f"{_shown(self.written)} of {self.variable}"

    def check(self) -> None:
        """Check that HTTP clients can use the address.

        Raises:
            InputError: the variable is not a proxy address that HTTP clients support.
        """
        try:
            web_address(self.url, _SCHEMES)
            is_one = self.written.isprintable()
        except ValueError:
            is_one = False
        if not is_one:
            remedy = f"Write {self.variable}=http://HOST:PORT (or https, socks5, socks5h), or unset it"
            raise InputError(self.variable, f"{_shown(self.written)!r} is not a usable proxy address", remedy)


def is_direct(url: str) -> bool:
    """Whether the URL is on this machine, so that no proxy may see the request (or its keys)."""
    parts = _split(url)
    return parts is not None and is_this_machine(parts.hostname or "")


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy for the URL; None if there is none, the URL is on this machine, or NO_PROXY excludes it."""
    environment = os.environ if environment is None else environment
    parts = _split(url)
    if parts is None or is_direct(url) or any(_excludes(entry, parts) for entry in _excluded(environment)):
        return None
    proxies = {proxy.variable.lower(): proxy for proxy in _proxies(environment)}
    return proxies.get(f"{parts.scheme.lower()}_proxy") or proxies.get("all_proxy")


def bypass_proxies(environment: MutableMapping[str, str], url: str) -> None:
    """Set NO_PROXY so that no library uses a proxy for this machine, nor for the URL if it is excluded.

    Libraries read either NO_PROXY or no_proxy, and support different forms of entries. Both get the same value, which
    all of them can read.

    Args:
        url: its host is added exactly as spelled, since libraries compare text.
    """
    told = list(_excluded(environment))
    entries = [readable for entry in told if (readable := _readable(entry))]
    entries += [host for host in _LOCAL if host not in entries]
    if (parts := _split(url)) is not None and (host := parts.hostname or "") not in entries:
        # All libraries match names that are spelled out.
        others = told if address_of(host) else [entry for entry in told if "*" in entry]
        if is_direct(url) or any(_excludes(entry, parts) for entry in others):
            entries.append(host)
    # Some libraries support the star only as the sole entry.
    environment["NO_PROXY"] = environment["no_proxy"] = "*" if "*" in entries else ",".join(entries)


def named_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies of the environment: variable -> address without user and password."""
    return {proxy.variable: _shown(proxy.written) for proxy in _proxies(environment)}


def check_proxies(environment: Mapping[str, str] | None = None) -> None:
    """Check that HTTP clients can be created with the proxies of the environment.

    Prefect creates its clients with all of them, even if none will be used.

    Raises:
        InputError: a variable is not a proxy address that HTTP clients support.
    """
    for proxy in _proxies(os.environ if environment is None else environment):
        proxy.check()


def _proxies(environment: Mapping[str, str]) -> Iterator[Proxy]:
    """Yield the proxies that HTTP clients read; a lower-case variable takes precedence over upper case."""
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            if name in environment:
                if environment[name].strip():
                    yield Proxy(name, environment[name])
                break


def _excluded(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the entries of NO_PROXY in lower case; URLs are cut to host and port."""
    told = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    for entry in re.split(r"[,;\s]+", told.lower()):
        _, is_url, rest = entry.rpartition("://")
        if entry := rest.partition("/")[0] if is_url else entry:
            yield entry


def _excludes(entry: str, url: SplitResult) -> bool:
    """Whether the entry matches the URL, by the rules of curl, Go and Python, and patterns of other libraries."""
    host = (url.hostname or "").rstrip(".")
    address = address_of(host)
    try:
        if "/" in entry:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        if (alone := address_of(entry.strip("[]"))) is not None:
            return address == alone
    except ValueError:
        return False
    if (found := _ENTRY.fullmatch(entry)) is None:
        return False
    if found["port"] and int(found["port"]) != (url.port or _PORTS.get(url.scheme.lower())):
        return False
    named = found["host"].strip("[]").removeprefix("*.").strip(".")
    if (alone := address_of(named)) is not None:
        return address == alone
    return bool(named) and (host.endswith(f".{named}") or fnmatch.fnmatchcase(host, named))


def _readable(entry: str) -> str:
    """Return the entry in a form that all libraries read, else "": some entries stop clients from being created."""
    if entry == "*":
        return entry
    found = _ENTRY.fullmatch(entry)
    bare = found["host"].strip("[]") if found else entry
    try:
        return str(ipaddress.IPv4Network(bare, strict=False) if "/" in bare else ipaddress.IPv6Address(bare))
    except ValueError:
        pass
    name = bare.removeprefix("*.").strip(".")
    if found is None or not _NAME.fullmatch(name):
        return ""
    return f"{name}:{int(found['port'])}" if found["port"] else name


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        return None
    return parts


def _shown(proxy: str) -> str:
    scheme, found, rest = proxy.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
