"""Processes of a benchmark that measure on request, so that variants can be timed in turns.

A worker answers each line on its standard input with one line of JSON. It uses the standard library alone: a peer's
interpreter imports this file, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any


class Worker:
    """A process that measures; use it as a context manager.

    Args:
        command: the interpreter, the script and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if error is not None:
            self._process.terminate()
        self._process.wait()

    def wait(self) -> dict[str, Any]:
        """Return its next message: first that it is ready, then an answer to each `measure`.

        Raises:
            RuntimeError: the process ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended with status {self._process.wait()}")
        return json.loads(line)

    def measure(self) -> dict[str, Any]:
        """Return one measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.wait()


def serve(make: Callable[[], Callable[[], dict[str, Any]]]) -> None:
    """Run as a worker.

    Args:
        make: prepares (compiles) and returns the function to measure, which returns facts about its call, including
            `frames`. The first call is a warm-up.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # library output must not look like an answer
        began = time.process_time()
        run = make()
        run()
        forget_peak()
        _answer(answers, {"preparing_cpu_seconds": time.process_time() - began, "cores": len(os.sched_getaffinity(0))})
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            facts = run()
            seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
            _answer(answers, {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib(), **facts})


def _answer(stream: Any, facts: dict[str, Any]) -> None:
    stream.write(json.dumps(facts) + "\n")
    stream.flush()


def forget_peak() -> None:
    """Reset the peak of `peak_mib`: compiling takes more memory than running. No effect where Linux refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("peak memory includes compiling: /proc/self/clear_refs cannot be written", file=sys.stderr)


def peak_mib() -> float:
    """Return this process's peak memory, MiB (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")
