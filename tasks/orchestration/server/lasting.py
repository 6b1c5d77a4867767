"""Upkeep of a process that runs for weeks: protect its temporary directory, bound its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
import tempfile
import threading
import time

__all__ = ["bound", "last"]

MOST_PRINTED = 2_000_000
"""Maximum bytes of a log. A service that fails on every turn writes some MB of tracebacks in minutes."""

_LOOK_S = 1.0
_DROPPED = b"... (earlier lines were dropped)\n"


def last() -> None:
    """Protect this process's temporary directory and bound its output until it ends, in a thread."""
    threading.Thread(target=_look_after, name="lasting", daemon=True).start()


def bound(descriptor: int, most: int) -> None:
    """Keep only the last quarter of a file that exceeds `most` bytes; others may append to it meanwhile.

    Anything that cannot be cut is left alone: a terminal, a pipe, a write-only file.
    """
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size <= most:
            return
        kept = os.pread(descriptor, most // 4, found.st_size - most // 4)
        # All writers append, so the next output goes to the new end.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _DROPPED + kept.partition(b"\n")[2])


def _look_after() -> None:
    directory = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        # Tools that remove old temporary files (systemd-tmpfiles) skip a locked directory.
        fcntl.flock(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH)
    while True:
        with contextlib.suppress(OSError):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                bound(stream.fileno(), MOST_PRINTED)
        time.sleep(_LOOK_S)
