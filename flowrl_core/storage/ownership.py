"""Locks between processes of one machine: the kernel frees them when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from flowrl_core.errors import ConflictError
from flowrl_core.storage.layout import RunDirectory

__all__ = ["exclusive", "own_run"]


@contextlib.contextmanager
def own_run(directory: RunDirectory) -> Iterator[None]:
    """Hold a run for as long as the block lasts: nobody else prepares, trains or processes it.

    Raises:
        ConflictError: another living process holds it; its process id is named.
    """
    with exclusive(directory.owner_lock, what=f"the run {directory.path.name}"):
        yield


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; `what` names the thing in the error.

    With `wait`, wait for the holder instead of refusing.

    Raises:
        ConflictError: another living process holds it and `wait` is false.
    """
    descriptor = _acquire(path, what, wait)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # Removed while still held: whoever waits for it sees that the name is gone and makes a new one.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, what: str, wait: bool) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as exc:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConflictError(
                f"{what} is held by process {holder} (lock {path}); wait for it, or stop it if it hangs"
            ) from exc
        if _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the locked file still has the name: its last holder may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
