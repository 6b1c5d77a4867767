"""Proxies that the environment names: which one a URL is asked through, if any, and which of them cannot be used."""

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
    """A proxy that a variable of the environment names: as it is written there, with a password perhaps."""

    variable: str
    written: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its address with a scheme, password included."""
        bare = self.written.strip()
        return bare if "://" in bare else f"http://{bare}"

    def __str__(self) -> str:
        return f"{_shown(self.written)} of {self.variable}"

    def check(self) -> None:
        """Nothing, if it can be asked.

        Raises:
            InputError: the variable holds no address of a proxy that HTTP clients know.
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
    """Whether the URL is of this machine, so that no proxy may be asked for it (or get its keys)."""
    parts = _split(url)
    return parts is not None and is_this_machine(parts.hostname or "")


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy that the URL is asked through; None if none is: it is of this machine, or a person excludes it."""
    environment = os.environ if environment is None else environment
    parts = _split(url)
    if parts is None or is_direct(url) or any(_excludes(entry, parts) for entry in _excluded(environment)):
        return None
    proxies = {proxy.variable.lower(): proxy for proxy in _proxies(environment)}
    return proxies.get(f"{parts.scheme.lower()}_proxy") or proxies.get("all_proxy")


def bypass_proxies(environment: MutableMapping[str, str], url: str) -> None:
    """Let no library that reads this environment ask a proxy for this machine, nor for the URL if it is excluded.

    Of NO_PROXY and no_proxy, libraries read one, and each has its own forms of entries: what both say from now on, all
    of them read.

    Args:
        url: is added as it is spelled, for libraries compare texts.
    """
    told = list(_excluded(environment))
    entries = [readable for entry in told if (readable := _readable(entry))]
    entries += [host for host in _LOCAL if host not in entries]
    if (parts := _split(url)) is not None and (host := parts.hostname or "") not in entries:
        # Names that entries spell out are found by all of them.
        others = told if address_of(host) else [entry for entry in told if "*" in entry]
        if is_direct(url) or any(_excludes(entry, parts) for entry in others):
            entries.append(host)
    # Some libraries know the star only where it stands alone.
    environment["NO_PROXY"] = environment["no_proxy"] = "*" if "*" in entries else ",".join(entries)


def named_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxies that the environment names: variable -> address without user and password."""
    return {proxy.variable: _shown(proxy.written) for proxy in _proxies(environment)}


def check_proxies(environment: Mapping[str, str] | None = None) -> None:
    """Nothing, if the HTTP clients of this process can be made with the proxies of its environment.

    Prefect's are made with all of them, also where none is to be asked.

    Raises:
        InputError: a variable holds no address of a proxy that they know.
    """
    for proxy in _proxies(os.environ if environment is None else environment):
        proxy.check()


def _proxies(environment: Mapping[str, str]) -> Iterator[Proxy]:
    """Those that HTTP clients read, by the variable that holds: small letters come before capitals."""
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            if name in environment:
                if environment[name].strip():
                    yield Proxy(name, environment[name])
                break


def _excluded(environment: Mapping[str, str]) -> Iterator[str]:
    """What is not to be asked through a proxy, entry by entry, in small letters; URLs are cut to host and port."""
    told = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    for entry in re.split(r"[,;\s]+", told.lower()):
        _, is_url, rest = entry.rpartition("://")
        if entry := rest.partition("/")[0] if is_url else entry:
            yield entry


def _excludes(entry: str, url: SplitResult) -> bool:
    """Whether the entry is about the URL: as curl, Go and Python read one, and the patterns of others besides."""
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
    """The entry in a form that all libraries read, or nothing: with some entries clients cannot even be made."""
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
