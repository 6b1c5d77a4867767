"""A watchdog: a process without progress kills itself, since a hung device or file system gives no other sign.

Its run is then Crashed, and retried a bounded number of times like after any other failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Crashed

__all__ = ["beat", "report_crash", "watched"]

logger = logging.getLogger(__name__)

_SHARE = 20
"""Number of checks within the allowed silence."""

_last_beat = time.monotonic()


def beat() -> None:
    """Report progress."""
    global _last_beat
    _last_beat = time.monotonic()


@contextlib.contextmanager
def watched(seconds: float, *, last_words: Callable[[str], None] = lambda reason: None) -> Iterator[None]:
    """Kill this process if `beat` is not called for `seconds` within the block; `last_words` gets the reason first.

    It uses SIGKILL, since a hung process does not handle other signals.
    """
    over = threading.Event()
    beat()

    def watch() -> None:
        while not over.wait(seconds / _SHARE):
            if time.monotonic() - _last_beat > seconds:
                reason = f"no progress for {seconds / 60:g} minutes"
                logger.error("%s: the process is ended", reason)
                with contextlib.suppress(Exception):
                    last_words(reason)
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def report_crash(reason: str) -> None:
    """Report to the server why the run of this process crashes: its worker knows only the signal."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run.id), Crashed(message=reason), force=True)
