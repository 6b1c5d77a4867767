"""Requests to end a command: SIGINT (Ctrl-C), SIGTERM, or SIGHUP (its terminal has closed).

The first request interrupts the main thread, whatever it does. Further ones are only counted while the command ends:
they show how urgent it is. The first one also determines the exit code: a supervisor, or a terminal that closes, sends
two at once.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import IO, Any, TypeVar

from flowrl_core.signals import REQUESTS, outlives_terminal, restore

__all__ = ["Interrupted", "asked", "audience", "check", "deferred", "end_at_once", "heed", "run"]

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """A request to end the command; handlers of Ctrl-C handle it, too."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = signal.Signals(number).name
        super().__init__(f"stopped by {self.name}")

    @property
    def code(self) -> int:
        """The exit code that shells expect: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


_BURST_S = 0.5
"""Requests this soon after an interrupting one belong to it: they do not interrupt the shutdown that has begun."""

_IMPORT_S = 0.05
_MOST_IN_IMPORT = 2
"""More requests than this interrupt an import, too: it may hang."""
_IMPORT_MACHINERY = "<frozen importlib._bootstrap>"

_asked: list[int] = []
_heard_at = -math.inf
_is_deferred = False
_cancel: Callable[[], object] | None = None
"""Cancels the main thread's event loop task, which is gentler than an exception in the middle of it."""


def heed() -> None:
    """Let requests to end interrupt this process and all that it starts, however its parent had set the signals.

    Only an intentionally ignored SIGHUP stays ignored: see `outlives_terminal`.
    """
    _handle(_heard)
    signal.signal(signal.SIGALRM, _remind)
    # At exit, Python resets its handlers: a request would then end the process by signal, not with its exit code. The
    # first registered function runs last.
    atexit.register(_handle, signal.SIG_IGN)
    restore()


def asked() -> Interrupted | None:
    """Return the first request, if there was one: the interrupted code may have turned it into another error."""
    return Interrupted(_asked[0]) if _asked else None


def check() -> None:
    """Check that there was no request, and that the output still has a reader.

    Raises:
        Interrupted: there was a request that the interrupted code swallowed, or the reader is gone, which only the next
            printed line would show otherwise.
    """
    if _asked:
        _postpone(0)
        raise Interrupted(_asked[0])
    if _is_unread(sys.stdout):
        _hang_up()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return the coroutine's result, like `asyncio.run`; the first request cancels it and the next interrupts it.

    Raises:
        Interrupted: there was a request.
    """

    async def interruptible() -> T:
        global _cancel
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        _cancel = lambda: loop.call_soon_threadsafe(task.cancel)  # noqa: E731
        try:
            return await work
        except asyncio.CancelledError:
            check()
            raise
        finally:
            _cancel = None

    return asyncio.run(interruptible())


@contextlib.contextmanager
def audience() -> Iterator[None]:
    """Within the block, output goes to a user who may have left; that counts as SIGHUP, even if SIGHUP is ignored.

    Raises:
        Interrupted: the terminal has closed, or the reader of a pipe has ended.
    """
    try:
        yield
    except OSError:
        _hang_up()


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Within the block, requests interrupt nothing; yields a function that returns how many arrived in it."""
    global _is_deferred
    before, was_deferred, _is_deferred = len(_asked), _is_deferred, True
    try:
        yield lambda: len(_asked) - before
    finally:
        _is_deferred = was_deferred


def end_at_once() -> None:
    """Let every further request end the process at once: only Python's own shutdown is left."""
    _postpone(0)
    _handle(lambda number, frame: os._exit(128 + (_asked or [number])[0]))


def _hang_up() -> None:
    """End, or continue silently if SIGHUP is ignored on purpose."""
    if outlives_terminal():
        for stream in filter(_is_unread, (sys.stdout, sys.stderr)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return
    _asked.append(signal.SIGHUP)
    raise Interrupted(_asked[0])


def _is_unread(stream: IO[str]) -> bool:
    """Whether the terminal behind the stream has closed, or the reader of the pipe has ended."""
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        poll.register(stream.fileno(), 0)
        return any(found & (select.POLLHUP | select.POLLERR) for _, found in poll.poll(0))
    return False


def _handle(handler: Callable[[int, Any], object] | signal.Handlers) -> None:
    is_detached = outlives_terminal()
    for number in REQUESTS:
        if not (number == signal.SIGHUP and is_detached):
            signal.signal(number, handler)


def _heard(number: int, frame: FrameType | None) -> None:
    global _heard_at
    _asked.append(number)
    if _is_deferred or time.monotonic() - _heard_at < _BURST_S:
        return
    _heard_at = time.monotonic()
    _interrupt(frame)


def _postpone(seconds: float = _IMPORT_S) -> None:
    """Call `_remind` after this many seconds; 0 cancels that, since the request has been handled."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _remind(number: int, frame: FrameType | None) -> None:
    if _is_deferred:
        _postpone()
    else:
        _interrupt(frame)


def _interrupt(frame: FrameType | None) -> None:
    global _cancel
    if _cancel is not None:
        cancel, _cancel = _cancel, None
        cancel()
        return
    if len(_asked) <= _MOST_IN_IMPORT and _is_importing(frame):
        _postpone()
        return
    _postpone(0)
    raise Interrupted(_asked[0])


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: many turn an interrupt into an ImportError, or swallow it."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_MACHINERY:
            return True
        frame = frame.f_back
    return False
