"""Processes that are asked for something, and live no longer than who asks."""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

__all__ = ["run_child"]

_PATIENCE_S = 5.0

_asking: set[_Asking] = set()


def run_child(
    command: Sequence[str], *, timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What became of the command: `subprocess.run` with text (UTF-8), after which the child is gone in any case.

    That one leaves it behind if it is interrupted while it starts it, or waits for it in a thread of a process that
    ends (such as `flowrl doctor` has).

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    asking = _Asking(command, timeout, options)
    try:
        asking.thread.start()
        return asking.found.result()
    finally:
        asking.end()


class _Asking:
    """One child and the thread that starts it and waits for it: there no request to end interrupts anything."""

    def __init__(self, command: Sequence[str], timeout: float | None, options: dict[str, Any]) -> None:
        self.found: Future[subprocess.CompletedProcess[str]] = Future()
        self.thread = threading.Thread(target=self._ask, args=(command, timeout, options), name="child", daemon=True)
        self._process: subprocess.Popen[str] | None = None
        self._is_over = False
        _asking.add(self)

    def end(self) -> None:
        """Kill the child if it lives, or as soon as it has begun."""
        self._is_over = True
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
        if self.thread.ident is not None:
            self.thread.join(_PATIENCE_S)
        _asking.discard(self)

    def _ask(self, command: Sequence[str], timeout: float | None, options: dict[str, Any]) -> None:
        try:
            with subprocess.Popen(command, encoding="utf-8", errors="replace", **options) as process:
                self._process = process
                try:
                    if self._is_over:
                        process.kill()
                    out, err = process.communicate(timeout=timeout)
                finally:
                    process.kill()
            self.found.set_result(subprocess.CompletedProcess(command, process.returncode, out, err))
        except BaseException as exc:
            self.found.set_exception(exc)


@atexit.register
def _end_all() -> None:
    for asking in list(_asking):
        asking.end()
