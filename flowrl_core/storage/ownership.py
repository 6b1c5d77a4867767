"""Locks between processes of one machine; the kernel frees them when their holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.storage.layout import RunDirectory

__all__ = ["Holder", "exclusive", "find_holder", "hold_for_all_users", "own_run"]

_NOTE_BYTES = 4096
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""In a directory that all users can write, the file may be a link, or a pipe that waits for a writer."""


@dataclass(frozen=True)
class Holder:
    """The holder of a machine-wide lock. An unknown process has id 0.

    Attributes:
        since: seconds since the epoch.
        note: the holder's description of itself.
    """

    pid: int
    user: str
    since: float
    note: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "an unknown process"
        return f"process {self.pid} of {self.user} since {time.strftime('%d %b %H:%M:%S', time.localtime(self.since))}"


@contextlib.contextmanager
def own_run(directory: RunDirectory) -> Iterator[None]:
    """Hold a run within the block: no other process can prepare, train or process it.

    Raises:
        ConflictError: another living process holds it; the message names its process id.
    """
    with exclusive(directory.owner_lock, what=f"the run {directory.path.name}"):
        yield


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; `what` names the locked object in the error.

    With `wait`, wait for the holder instead of raising.

    Raises:
        ConflictError: another living process holds it and `wait` is false.
    """
    descriptor = _acquire(path, what, wait)
    try:
        _write(descriptor, f"{os.getpid()}\n")
        yield
    finally:
        # Removed while still held: a waiting process sees that the name is gone and creates a new file.
        with contextlib.suppress(OSError):  # the file system became read-only: the file stays
            path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def hold_for_all_users(path: Path, *, note: str = "") -> Iterator[None]:
    """Hold a lock file shared by all users of the machine, in a directory that all can write.

    The file stays when nobody holds it, as it may be another user's.

    Raises:
        ConflictError: a living process holds it; the message names the holder.
    """
    descriptor = _acquire_shared(path)
    try:
        _write(descriptor, json.dumps(asdict(Holder(os.getpid(), _user(), time.time(), note))))
        yield
    finally:
        _write(descriptor, "")
        os.close(descriptor)


def find_holder(path: Path) -> Holder | None:
    """The holder of a lock file of `hold_for_all_users`; None if nobody holds it."""
    try:
        descriptor = _open_to_read(path)
    except ConflictError:
        return Holder(0, "", 0.0)
    except OSError:
        return None
    try:
        # A shared lock, as others may check at the same moment.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _acquire_shared(path: Path) -> int:
    while True:
        descriptor = _open_shared(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise ConflictError(f"{path} is held by {holder}") from exc
        if _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)


def _open_shared(path: Path) -> int:
    """The open file, created writable for all users if it does not exist."""
    while True:
        # Never O_CREAT alone: in a sticky directory the kernel refuses it for another user's file.
        with contextlib.suppress(FileNotFoundError):
            return _open_plain(path)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
            os.fchmod(descriptor, 0o666)
            return descriptor


def _open_plain(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | _FLAGS)
    except PermissionError:
        # Its creator has not set its mode yet, or does not share it; locking needs no write access.
        return _open_to_read(path)
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise StorageError(f"{path} is a link, which cannot be a lock; remove it") from exc
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    raise StorageError(f"{path} is not a regular file, or has other hard links, and cannot be a lock; remove it")


def _open_to_read(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | _FLAGS)
    except PermissionError as exc:
        raise ConflictError(f"{path} is not readable: its owner gives nobody else access") from exc


def _write(descriptor: int, text: str) -> None:
    with contextlib.suppress(OSError):  # opened for reading, or the disk is full: the lock holds anyway
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _read_holder(descriptor: int) -> Holder:
    try:
        found = json.loads(os.pread(descriptor, _NOTE_BYTES, 0))
        return Holder(int(found["pid"]), str(found["user"]), float(found["since"]), str(found["note"]))
    except (OSError, ValueError, LookupError, TypeError):
        return Holder(0, "", 0.0)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user id without a name, as in many containers
        return str(os.getuid())


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
    """Whether `path` is still the locked file; its last holder may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
