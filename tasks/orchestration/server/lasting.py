"""What a process looks after that lasts for weeks: its temporary directory stays, what it prints stays bounded."""

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
"""Bytes of a log. A service that fails at every turn writes some MB of tracebacks in minutes."""

_LOOK_S = 1.0
_DROPPED = b"... (earlier lines were dropped)\n"


def last() -> None:
    """Look after this process's temporary directory and output until it ends, in a thread."""
    threading.Thread(target=_look_after, name="lasting", daemon=True).start()


def bound(descriptor: int, most: int) -> None:
    """Keep only the last quarter of a file that became longer than `most` bytes; others may append to it meanwhile.

    Whatever cannot be cut is left alone: a terminal, a pipe, a file that was opened only for writing.
    """
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size <= most:
            return
        kept = os.pread(descriptor, most // 4, found.st_size - most // 4)
        # All who write append: what comes next stands at the new end.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _DROPPED + kept.partition(b"\n")[2])


def _look_after() -> None:
    directory = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        # Tools that remove old temporary files (systemd-tmpfiles) pass by a directory that is locked.
        fcntl.flock(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH)
    while True:
        with contextlib.suppress(OSError):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                bound(stream.fileno(), MOST_PRINTED)
        time.sleep(_LOOK_S)
