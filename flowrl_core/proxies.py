"""Proxies that the environment names: what never goes through them, and which of them cannot be used."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from flowrl_core.errors import InputError
from flowrl_core.this_machine import is_this_machine

__all__ = ["bypass_proxies", "check_proxies", "is_direct", "named_proxies", "proxy_of"]

_LOCAL = ("localhost", ".localhost", "127.0.0.1", "::1")
_SCHEMES = ("http", "https", "socks5", "socks5h")


def is_direct(url: str) -> bool:
    """Whether the URL is of this machine, so that no proxy may be asked for it (or get its keys)."""
    return is_this_machine(_host(url))


def bypass_proxies(environment: MutableMapping[str, str], url: str) -> None:
    """Let no library that reads this environment ask a proxy for this machine, nor for the URL if that is its.

    Of NO_PROXY and no_proxy, libraries read one: what both say, both say from now on.

    Args:
        url: is added as it is spelled, for libraries compare texts.
    """
    told = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    entries = [entry for one in told.split(",") if (entry := _readable(one.strip()))]
    own = [*_LOCAL, _host(url)] if is_direct(url) else list(_LOCAL)
    entries += [host for host in dict.fromkeys(own) if host not in entries]
    # Some libraries know the star only where it stands alone.
    environment["NO_PROXY"] = environment["no_proxy"] = "*" if "*" in entries else ",".join(entries)


def named_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxies that the environment names: variable -> address without user and password."""
    return {name: _shown(value) for name, value in _proxies(environment).items()}


def proxy_of(url: str) -> str:
    """The proxy that the URL is asked through, without user and password; empty if none is."""
    parts = urlsplit(url)
    if is_direct(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    proxies = getproxies()
    return _shown(proxies.get(parts.scheme) or proxies.get("all") or "")


def check_proxies(environment: Mapping[str, str] | None = None) -> None:
    """Nothing, if the HTTP clients of this process can be made with the proxies of its environment.

    They are made with all of them, also where none is to be asked.

    Raises:
        InputError: a variable holds no address of a proxy that they know.
    """
    for name, value in _proxies(os.environ if environment is None else environment).items():
        remedy = f"Write {name}=http://HOST:PORT, or unset it"
        try:
            parts = urlsplit(value if "://" in value else f"http://{value}")
            scheme, host, _ = parts.scheme.lower(), parts.hostname, parts.port
        except ValueError:
            scheme, host = "", None
        if not host or scheme not in _SCHEMES:
            raise InputError(name, f"{_shown(value)!r} is no proxy that can be asked", remedy)


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that HTTP clients read, by the variable that holds: small letters come before capitals."""
    found = {}
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            if name in environment:
                if environment[name]:
                    found[name] = environment[name]
                break
    return found


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _readable(entry: str) -> str:
    """The entry as all libraries read it, or nothing: httpx cannot even be started with brackets or IPv6 networks."""
    bare = entry.partition("]")[0].lstrip("[") if entry.startswith("[") else entry
    if "/" in bare and "://" not in bare and ":" in bare:
        return ""
    try:
        return str(ipaddress.IPv6Address(bare)) if ":" in bare and bare != entry else bare
    except ValueError:
        return ""


def _shown(proxy: str) -> str:
    scheme, found, rest = proxy.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
