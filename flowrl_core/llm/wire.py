"""The transport to a model's server: each attempt is booked before it is sent, timed and limited, and each end named.

It lies below the providers' packages, as a transport of their HTTP client, so that it sees every request they send.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx2
from socksio import SOCKSError

from flowrl_core.errors import InputError
from flowrl_core.llm.completions import generated
from flowrl_core.llm.dialects import Dialect
from flowrl_core.llm.faults import Fault, model_error
from flowrl_core.llm.keys import Keys
from flowrl_core.llm.names import ModelName
from flowrl_core.llm.protocols import Tokens, answered, tokens_told
from flowrl_core.llm.refusals import refused
from flowrl_core.llm.seam import Book
from flowrl_core.proxies import proxy_for
from flowrl_core.web_addresses import why_unreachable

__all__ = ["Line", "Wire"]

logger = logging.getLogger(__name__)

_WAITS_S = (1.0, 4.0)
_MOST_ATTEMPTS = len(_WAITS_S) + 1
_NOTHING: Tokens = (0, 0)
_NOT_TOLD: Tokens = (None, None)


@dataclass(frozen=True)
class Line:
    """The settings shared by all requests to one model.

    Attributes:
        dialect: the request fields that its server refuses.
        timeout_s: limit of one attempt, from the first byte sent to the last byte read, in seconds.
        sleep: waits the given seconds between attempts.
    """

    model: ModelName
    keys: Keys
    book: Book
    timeout_s: float
    max_output_tokens: int
    dialect: Dialect
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def longest_body(self) -> int:
        """The limit in bytes: 8 for each token, and an allowance for the rest of the body."""
        return 8 * self.max_output_tokens + 64 * 1024


class Wire(httpx2.AsyncBaseTransport):
    """The HTTP transport for one question, in one event loop.

    Attributes:
        num_sent: number of attempts sent.
        problem: the error that ended the last request, if it failed: the packages above wrap it in their own errors.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._client: httpx2.AsyncClient | None = None
        self.num_sent = 0
        self.problem: BaseException | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the whole answer once it is valid; a temporary failure is retried.

        Raises:
            ModelError: there was no valid answer.
            BudgetError: the next attempt could cost more than is left.
        """
        try:
            content = await self._exchange(request)
        except BaseException as exc:
            self.problem = exc
            raise
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=content, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _exchange(self, request: httpx2.Request) -> bytes:
        model = self._line.model
        # Checked only here, so that answers from the journal need no key.
        if no_key := self._line.keys.problem(model):
            raise model_error("no_key", no_key)
        await request.aread()
        plain, attempt = request.content, 0
        while True:
            request = _rewritten(request, self._line.dialect.written(plain))
            try:
                return await self._booked(request)
            except Fault as exc:
                fault = exc
            problem = self._line.keys.masked_text(fault.problem)
            if fault.refused_field and self._line.dialect.learn(fault.refused_field, request.content):
                continue  # sent again in another form; the attempt does not count as a failure
            attempt += 1
            if attempt == _MOST_ATTEMPTS or not fault.is_worth_repeating:
                break
            wait_s = _WAITS_S[attempt - 1] if fault.pause_s is None else fault.pause_s
            logger.warning("%s: attempt %d: %s (%s); next in %.0f s", model, attempt, problem, fault.code, wait_s)
            await self._line.sleep(wait_s)
        raise model_error(fault.code, f"{model}: {problem}", is_final=fault.is_final)

    async def _booked(self, request: httpx2.Request) -> bytes:
        """Return the body of one attempt's answer."""
        # A token of a byte-level vocabulary stands for at least one byte, and a server adds less around each message
        # than the JSON around it: so the body has at least as many bytes as the question has tokens.
        asked = len(request.content)
        number = self._line.book.reserve(
            str(self._line.model), input_tokens=asked, output_tokens=self._line.max_output_tokens
        )
        self.num_sent += 1
        outcome, told = "failed", _NOT_TOLD
        try:
            content = await self._attempt(request)
            outcome, told = "answered", content[1]
            return content[0]
        except Fault as exc:
            outcome, told = exc.code, _NOT_TOLD if exc.was_answered else _NOTHING
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._line.book.settle(number, outcome, input_tokens=told[0], output_tokens=told[1])

    async def _attempt(self, request: httpx2.Request) -> tuple[bytes, Tokens]:
        try:
            # A limit on the whole attempt: a limit per read never triggers if one byte arrives each second.
            async with asyncio.timeout(self._line.timeout_s):
                response, content = await self._post(request)
        except (TimeoutError, httpx2.TimeoutException):
            raise Fault("timeout", f"no complete answer within {self._line.timeout_s:g} s") from None
        except (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol, SOCKSError) as exc:
            why, trouble = why_unreachable(exc)
            problem = f"no connection: {why}{_through(request)}"
            is_final = trouble == "tls"
            raise Fault("unreachable", problem, is_final=is_final, was_answered=False) from None
        except (httpx2.TransportError, httpx2.DecodingError) as exc:
            raise Fault("cut_off", f"the answer was cut off: {_said(exc)}") from None
        content = self._line.keys.masked(content)  # a server may echo the headers it received
        provider = self._line.model.provider
        if response.is_success:
            body = answered(provider, response.headers, content)
        elif (badly_formed := generated(content)) is not None:
            body = badly_formed
        else:
            raise refused(response.status_code, response.headers, content)
        # Encoded anew, since JSON can write the characters of a key in several ways.
        content = self._line.keys.masked(json.dumps(body, ensure_ascii=False).encode())
        return content, tokens_told(provider, body)

    async def _post(self, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
        if self._client is None:
            self._client = _client(str(request.url))
        response = await self._client.send(request, stream=True)
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self._line.longest_body and response.is_success:
                    problem = f"the answer is longer than {self._line.longest_body} bytes, and was not read further"
                    raise Fault("too_long", problem)
                if len(content) > self._line.longest_body:
                    break  # an error page: its status is enough
        finally:
            await response.aclose()
        return response, bytes(content)


def _rewritten(request: httpx2.Request, content: bytes) -> httpx2.Request:
    headers = request.headers.copy()
    headers["content-length"] = str(len(content))
    # A compressed body could be small here and unbounded once decompressed.
    headers["accept-encoding"] = "identity"
    return httpx2.Request(request.method, request.url, headers=headers, content=content, extensions={"timeout": {}})


def _client(url: str) -> httpx2.AsyncClient:
    """Return the HTTP client for the server's URL, through the environment's proxy for it, if there is one.

    Requests to this machine use no proxy: no third party sees the question or the key.

    Raises:
        Fault: `unreachable`: the proxy cannot be used.
    """
    proxy = proxy_for(url)
    try:
        if proxy:
            proxy.check()
    except InputError as exc:
        raise Fault("unreachable", str(exc), is_final=True, was_answered=False) from None
    through = proxy.url if proxy else None
    return httpx2.AsyncClient(
        verify=_certificates(), timeout=None, follow_redirects=False, trust_env=False, proxy=through
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()  # takes 50 ms, most of the cost of a question here


def _through(request: httpx2.Request) -> str:
    """Return the remark on the proxy of a request that could not connect; empty without a proxy."""
    proxy = proxy_for(str(request.url))
    return f", through the proxy {proxy}" if proxy else ""


def _said(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
