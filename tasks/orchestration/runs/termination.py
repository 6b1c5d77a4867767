"""Run work that ends at a safe point when its process is asked to end."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import TypeVar

from prefect.exceptions import TerminationSignal

__all__ = ["told_anywhere", "until_told"]

T = TypeVar("T")

_PATIENCE_S = 3.0
_LOOK_S = 0.2
_HEARD_S = 1.0


def until_told(work: Callable[[Callable[[], bool]], T], *, has_unsaved: Callable[[], bool] = lambda: False) -> T:
    """Return the result of `work(should_stop)`.

    A cancellation, SIGTERM or Ctrl-C makes `should_stop` true, and is raised once the work has returned. Prefect
    delivers them as an exception at an arbitrary point of the main thread. So the work runs in a thread of its own
    while the main thread only waits: raised in the middle of JAX, the exception was sometimes lost, and the run went on
    until it was killed. (FlowRL cannot install its own SIGTERM handler: Prefect counts a run as cancelled only while
    Prefect's handler is in place.)

    Work that does not return soon, because it compiles or waits for another process that does, is abandoned and ends
    with the process: every stage may be killed at any point.

    Args:
        has_unsaved: whether the work would lose something if abandoned; if so, it is waited for without limit.
    """
    told, future = threading.Event(), Future[T]()
    context = contextvars.copy_context()

    def do() -> None:
        try:
            future.set_result(context.run(work, told.is_set))
        except BaseException as exc:
            future.set_exception(exc)

    # Not from a pool: Python waits for the threads of pools at exit.
    thread = threading.Thread(target=do, name="work", daemon=True)
    try:
        thread.start()
        return future.result()
    except BaseException:
        told.set()
        if thread.ident is not None:
            _wait(future, has_unsaved)
        raise


@contextlib.asynccontextmanager
async def told_anywhere() -> AsyncIterator[None]:
    """Make a SIGTERM end the block, wherever the event loop of the main thread is when it arrives.

    Prefect raises an exception for it at an arbitrary point of that thread. In another task of the loop it ended only
    that task, and in a callback it ended nothing: a campaign that had lost its watcher was killed half a minute later.
    Python also reports each signal through a socket: if the block still runs a moment after that, it has not received
    the exception.

    Raises:
        TerminationSignal: the process was asked to end.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    loop, block = asyncio.get_running_loop(), asyncio.current_task()
    is_told, timers = False, list[asyncio.TimerHandle]()

    def end() -> None:
        nonlocal is_told
        if block is not None:
            is_told = block.cancel()

    def listen() -> None:
        if signal.SIGTERM in heard.recv(4_096):
            timers.append(loop.call_later(_HEARD_S, end))

    heard, told = socket.socketpair()
    with heard, told:
        heard.setblocking(False)
        told.setblocking(False)
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        loop.add_reader(heard, listen)
        try:
            yield
        except asyncio.CancelledError as exc:
            if not is_told or block is None:
                raise
            block.uncancel()
            raise TerminationSignal(signal.SIGTERM) from exc
        finally:
            loop.remove_reader(heard)
            signal.set_wakeup_fd(before)
            for timer in timers:
                timer.cancel()


def _wait(future: Future[T], has_unsaved: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not future.done():
        try:
            future.exception(_LOOK_S)
        except TimeoutError:
            if time.monotonic() > deadline and not has_unsaved():
                atexit.register(_end)
                return
        except BaseException:  # asked again: the work is already ending
            continue


def _end() -> None:
    """End the process while work is running: the normal exit of Python and compilers cannot handle that."""
    logging.shutdown()
    sys.stdout.flush()
    # The intended exit code is unknown here, but an exception that has ended the process is recorded.
    os._exit(1 if hasattr(sys, "last_value") else 0)
