"""Work that ends at a safe point when its process is told to end."""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["until_told"]

T = TypeVar("T")

_PATIENCE_S = 3.0
_LOOK_S = 0.2


def until_told(work: Callable[[Callable[[], bool]], T], *, has_unsaved: Callable[[], bool] = lambda: False) -> T:
    """What `work(should_stop)` returns.

    A cancellation, a SIGTERM or a Ctrl-C that arrives meanwhile makes `should_stop` true, and is raised once the work
    has returned. Prefect delivers them as an exception in the main thread, wherever that is. So all work has a thread
    of its own, while the main thread does nothing but wait: raised in the middle of JAX, the exception was lost now
    and then, and the run went on until it was killed. (A handler of our own for SIGTERM would not do: Prefect takes a
    run for cancelled only while its own is in place.)

    Work that does not return soon, since it compiles or waits for another that does, is left behind where it is, and
    ends with the process: every stage may be killed at any point.

    Args:
        has_unsaved: whether the work would lose something by that. It is waited for, however long it takes.
    """
    told, future = threading.Event(), Future[T]()
    context = contextvars.copy_context()

    def do() -> None:
        try:
            future.set_result(context.run(work, told.is_set))
        except BaseException as exc:
            future.set_exception(exc)

    # Not of a pool: Python waits for the threads of pools at its end.
    threading.Thread(target=do, name="work", daemon=True).start()
    try:
        return future.result()
    except BaseException:
        told.set()
        _wait(future, has_unsaved)
        raise


def _wait(future: Future[T], has_unsaved: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not future.done():
        try:
            future.exception(_LOOK_S)
        except TimeoutError:
            if time.monotonic() > deadline and not has_unsaved():
                atexit.register(_end)
                return
        except BaseException:  # told again: the work is ending already
            continue


def _end() -> None:
    """End the process with work in it: what Python and compilers do at an ordinary end is not made for that."""
    logging.shutdown()
    sys.stdout.flush()
    # Nobody tells how the process was going to end, but an exception that has ended it is kept.
    os._exit(1 if hasattr(sys, "last_value") else 0)
