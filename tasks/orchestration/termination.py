"""Work that ends at a safe point when its process is told to end."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["until_told"]

T = TypeVar("T")


def until_told(work: Callable[[Callable[[], bool]], T]) -> T:
    """What `work(should_stop)` returns.

    A cancellation, a SIGTERM or a Ctrl-C that arrives meanwhile makes `should_stop` true, and is raised once the work
    has returned. Prefect delivers them as an exception in the main thread, wherever that is. So all work has a thread
    of its own, while the main thread does nothing but wait: raised in the middle of JAX, the exception was lost now
    and then, and the run went on until it was killed. (A handler of our own for SIGTERM would not do: Prefect takes a
    run for cancelled only while its own is in place.)
    """
    told = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="work") as pool:
        future = pool.submit(contextvars.copy_context().run, work, told.is_set)
        try:
            return future.result()
        except BaseException:
            told.set()
            _wait(future)
            raise


def _wait(future: Future[T]) -> None:
    while not future.done():
        try:
            future.exception()
        except BaseException:  # told again: the work is ending already
            continue
