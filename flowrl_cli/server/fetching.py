"""One HTTP request by the command itself: bounded in time and size, and never through a wrong proxy."""

from __future__ import annotations

import http.client
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urljoin, urlsplit

from flowrl_core.errors import InputError
from flowrl_core.proxies import Proxy, proxy_for
from flowrl_core.web_addresses import web_address, why_unreachable

__all__ = ["Answer", "NoAnswerError", "fetch"]

_MOST_BYTES = 1_000_000
_MOST_MOVES = 5


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status; `headers`: by name in lower case, since servers differ in how they write them."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswerError(Exception):
    """No HTTP answer arrived; the text says why.

    `is_passing`: whether waiting may help. It does not for unknown names, TLS or certificate errors, and redirections.
    """

    def __init__(self, problem: str, *, is_passing: bool = True) -> None:
        super().__init__(problem)
        self.is_passing = is_passing


def fetch(
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    certificates: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    body: bytes | None = None,
) -> Answer:
    """Return the answer to a GET, or to a POST of the body; at most one megabyte is read.

    Args:
        seconds: limit for the whole request. (A limit per read never ends if one byte arrives each second, and name
            look-ups have no limit.)
        certificates: makes the TLS context with the trusted certificates.

    Raises:
        NoAnswerError: no answer arrived in time.
        ValueError: the URL is invalid.
    """
    _check(url)
    request = urllib.request.Request(url, headers=dict(headers or {}), data=body)
    proxy = proxy_for(url)
    found: list[Answer | BaseException] = []

    def work() -> None:
        try:
            if proxy is None:
                found.append(_asked(request, seconds, certificates))
            else:
                found.append(_asked_through(proxy, request, seconds, certificates))
        except BaseException as exc:
            found.append(exc)

    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(seconds)
    if not found:
        raise NoAnswerError(f"no complete response within {seconds:.0f} s")
    if isinstance(found[0], Answer):
        return found[0]
    raise found[0]


def _check(url: str) -> None:
    parts = web_address(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("it contains a user or a password: set them in PREFECT_API_AUTH_STRING")
    if "?" in url or "#" in url:
        raise ValueError("it contains a query or a fragment")


def _asked(request: urllib.request.Request, seconds: float, certificates: Callable[[], ssl.SSLContext]) -> Answer:
    try:
        secure = [urllib.request.HTTPSHandler(context=certificates())] if request.type == "https" else []
        opener = urllib.request.build_opener(_SameOrigin, *secure, urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=seconds) as answer:
            return Answer(answer.status, _by_name(answer.headers), answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(exc.code, _by_name(exc.headers), b"")
    except http.client.InvalidURL as exc:
        raise ValueError(str(exc)) from None
    except (OSError, http.client.HTTPException) as exc:
        raise _no_answer(exc) from None


def _asked_through(
    proxy: Proxy, request: urllib.request.Request, seconds: float, certificates: Callable[[], ssl.SSLContext]
) -> Answer:
    """Send the request as Prefect's clients do through a proxy: urllib supports no SOCKS, TLS proxies or ALL_PROXY."""
    import httpx2  # takes a third of a second to import
    from socksio import SOCKSError

    try:
        proxy.check()
    except InputError as exc:
        raise NoAnswerError(str(exc), is_passing=False) from None
    url, verify = request.full_url, certificates()
    headers, body = dict(request.header_items()), request.data if isinstance(request.data, bytes) else None
    try:
        with httpx2.Client(verify=verify, timeout=seconds, trust_env=False, proxy=proxy.url) as client:
            for _ in range(_MOST_MOVES):
                with client.stream(request.get_method(), url, headers=headers, content=body) as answer:
                    if not answer.has_redirect_location:
                        return Answer(answer.status_code, _by_name(answer.headers), _beginning(answer.iter_bytes()))
                    moved = urljoin(url, answer.headers["location"])
                    _check_moved(url, moved)
                    url = moved
            return Answer(answer.status_code, _by_name(answer.headers), b"")
    except (httpx2.HTTPError, SOCKSError) as exc:
        raise _no_answer(exc) from None


def _by_name(headers: Mapping[str, str] | Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _beginning(chunks: Iterable[bytes]) -> bytes:
    content = b""
    for chunk in chunks:
        content += chunk
        if len(content) >= _MOST_BYTES:
            break
    return content[:_MOST_BYTES]


def _no_answer(exc: Exception) -> NoAnswerError:
    if isinstance(exc, http.client.HTTPException) and not isinstance(exc, OSError):
        return NoAnswerError(f"the response is not HTTP: {type(exc).__name__} {str(exc)[:80]!r}")
    problem, trouble = why_unreachable(exc)
    return NoAnswerError(problem, is_passing=trouble == "passing")


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows redirections only within the server: others would leak the password."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_moved(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_moved(old: str, new: str) -> None:
    """Check that both URLs belong to the same server."""
    before, after = urlsplit(old), urlsplit(new)
    if (before.scheme, before.netloc) != (after.scheme, after.netloc):
        where = after._replace(query="", fragment="").geturl()
        raise NoAnswerError(f"it redirects to {where}, a different address", is_passing=False)
