"""Child processes that live no longer than their caller."""

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
    """Return the result of the command: `subprocess.run` with text (UTF-8), after which the child is gone in any case.

    `subprocess.run` itself leaves the child behind if it is interrupted while starting it, or if it waits in a thread
    of a process that ends (as in `flowrl doctor`).

    Raises:
        subprocess.TimeoutExpired: the command did not end in time, and was killed.
    """
    asking = _Asking(command, timeout, options)
    try:
        asking.thread.start()
        return asking.found.result()
    finally:
        asking.end()


class _Asking:
    """A child and the thread that starts it and waits for it: in a thread, no signal interrupts this."""

    def __init__(self, command: Sequence[str], timeout: float | None, options: dict[str, Any]) -> None:
        self.found: Future[subprocess.CompletedProcess[str]] = Future()
        self.thread = threading.Thread(target=self._ask, args=(command, timeout, options), name="child", daemon=True)
        self._process: subprocess.Popen[str] | None = None
        self._is_over = False
        _asking.add(self)

    def end(self) -> None:
        """Kill the child if it is alive, or as soon as it has started."""
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
