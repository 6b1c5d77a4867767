"""A process without progress ends itself: a hung device or file system gives no other sign.

Its run is then Crashed, and tried again a bounded number of times like after any other trouble.
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
"""How many times in the allowed silence it is looked for."""

_last_beat = time.monotonic()


def beat() -> None:
    """Say that there is progress."""
    global _last_beat
    _last_beat = time.monotonic()


@contextlib.contextmanager
def watched(seconds: float, *, last_words: Callable[[str], None] = lambda reason: None) -> Iterator[None]:
    """Kill this process if nobody calls `beat` for so long within the block; `last_words` is given the reason before.

    SIGKILL, since what hangs does not listen to anything else.
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
    """Tell the server why the run of this process crashes: its worker knows only the signal."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run.id), Crashed(message=reason), force=True)
