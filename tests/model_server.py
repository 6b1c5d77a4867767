"""A server of OpenAI's chat completions on a real port, that answers by a script and fails where it says so."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = [
    "Action",
    "ModelServer",
    "Received",
    "completion",
    "content_type",
    "cut",
    "drip",
    "fault",
    "hang",
    "raw",
    "say",
]


@dataclass(frozen=True)
class Received:
    """A request that arrived."""

    json: Any
    headers: Mapping[str, str]
    path: str

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Who said what."""
        return [(message["role"], message.get("content")) for message in self.json["messages"]]


@dataclass(frozen=True)
class Action:
    """What the server does with one request."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    missing_bytes: int = 0
    bytes_per_second: float | None = None
    is_silent: bool = False


Script = Sequence[Action] | Callable[[Any, int], Action]


def completion(content: str | None, **fields: Any) -> dict[str, Any]:
    """A chat completion; `fields` are of its message, but `finish_reason`, `usage` and `model`."""
    finish_reason = fields.pop("finish_reason", "stop")
    usage = fields.pop("usage", {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18})
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": fields.pop("model", "test-model"),
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content, **fields}}
        ],
        "usage": usage,
    }


def say(content: str | Mapping[str, Any] | None, **fields: Any) -> Action:
    """A well-formed completion with this text, or with this as JSON. See `completion` for the fields."""
    text = json.dumps(content) if isinstance(content, Mapping) else content
    return raw(json.dumps(completion(text, **fields)).encode())


def fault(
    kind: str = "status",
    status: int = 500,
    *,
    body: Any = "it went wrong",
    headers: Mapping[str, str] | None = None,
) -> Action:
    """An error in OpenAI's form, or with `body` as it is where that is bytes."""
    assert kind == "status"
    content = body if isinstance(body, bytes) else json.dumps({"error": {"message": body}}).encode()
    return Action(content, status, {"content-type": "application/json", **(headers or {})})


def hang() -> Action:
    """Take the request and never answer."""
    return Action(is_silent=True)


def drip(bytes_per_second: float) -> Action:
    """A well-formed completion, a byte at a time."""
    return Action(json.dumps(completion("{}")).encode(), 200, {"content-type": "application/json"}, 0, bytes_per_second)


def cut() -> Action:
    """Half of an answer, then the end of the connection."""
    whole = json.dumps(completion('{"title": "cut"}')).encode()
    half = whole[: len(whole) // 2]
    return Action(half, 200, {"content-type": "application/json"}, missing_bytes=len(whole) - len(half))


def content_type(kind: str, body: bytes = b"<html><body>Welcome</body></html>") -> Action:
    """Something of another type."""
    return Action(body, 200, {"content-type": kind})


def raw(body: bytes) -> Action:
    """These bytes as JSON."""
    return Action(body, 200, {"content-type": "application/json"})


class ModelServer:
    """Answers while it is entered. The script is a list, one action for each request, or gives one for (JSON, number).

    Numbers begin with 0. After a list's end the last action stays.

    Attributes:
        requests: all that came, in order.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._numbers = itertools.count()
        self.requests: list[Received] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """What follows the @ of a model's name."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def model(self) -> str:
        """A model's name."""
        return f"test-model@{self.url}"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def received(self, request: Received) -> Action:
        """Note the request and say what to do with it."""
        with self._lock:
            number = next(self._numbers)
            self.requests.append(request)
        if callable(self._script):
            return self._script(request.json, number)
        return self._script[min(number, len(self._script) - 1)]

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the server ends within the time."""
        return self._released.wait(seconds)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is none: nothing is printed."""


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            action = server.received(Received(json.loads(content), headers, self.path))
            if action.is_silent:
                server.wait()
                self.close_connection = True
                return
            try:
                self._answer(action)
            except (BrokenPipeError, ConnectionResetError):  # the client has had enough
                self.close_connection = True

        def _answer(self, action: Action) -> None:
            self.send_response(action.status)
            for name, value in action.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(action.body) + action.missing_bytes))
            self.end_headers()
            if action.bytes_per_second is None:
                self.wfile.write(action.body)
            else:
                for byte in action.body:
                    self.wfile.write(bytes([byte]))
                    if server.wait(1 / action.bytes_per_second):
                        break
            self.close_connection = self.close_connection or action.missing_bytes > 0

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
