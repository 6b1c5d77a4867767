"""Work that ends at a safe point when its process is told to end."""

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
    """Let a SIGTERM end the block, whatever the event loop of the main thread does when it arrives.

    The exception that Prefect makes of it is raised wherever that thread is just then. In another task of the loop it
    ended that task alone, and in a callback nothing: a campaign that had lost what wakes it was killed half a minute
    later. Python tells of each signal by a socket as well: if the block is still there a moment after that, it has not
    had the exception.

    Raises:
        TerminationSignal: it was told to end.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal is heard there
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
        except BaseException:  # told again: the work is ending already
            continue


def _end() -> None:
    """End the process with work in it: what Python and compilers do at an ordinary end is not made for that."""
    logging.shutdown()
    sys.stdout.flush()
    # Nobody tells how the process was going to end, but an exception that has ended it is kept.
    os._exit(1 if hasattr(sys, "last_value") else 0)
