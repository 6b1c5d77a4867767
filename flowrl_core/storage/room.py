"""Disk space of a home: how much is needed to start and to continue, and the errors when it runs out.

The only place that decides this: for `doctor`, for refusing to start, and for stopping when the disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowrl_core.errors import InputError, NoRoomError, ServiceError, StorageError
from flowrl_core.storage.atomic import temporary_beside
from flowrl_core.storage.layout import HOME_VARIABLE, Home

__all__ = ["Room", "check_going_on", "check_start", "naming_no_room", "shortage", "want_to_go_on"]

# A campaign on the shipped knowledge base uses a few hundred MB: checkpoints, versions, databases, compiled programs.
_PLENTY_MB, _PLENTY_FILES = 2_000, 20_000
# The databases of an embedded server with their logs, one run's compiled programs and checkpoints.
_START_MB, _START_FILES = 64, 500
# Enough for a process that stops for lack of space to record that it did.
_GOING_ON_MB, _GOING_ON_FILES = 8, 50

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of a full disk, an exceeded quota, and a file system that became read-only."""
_SHUT = {errno.EACCES, errno.EPERM}
"""Errors of a home that this user can no longer write."""
_PROBE = b"\0" * 4_096


@dataclass(frozen=True)
class Room:
    """The free space of a file system for this user.

    Attributes:
        mb: megabytes.
        files: number of files that can still be created; None without such a limit.
    """

    mb: float
    files: int | None

    @classmethod
    def at(cls, path: Path) -> Room:
        """The room on the file system where the path is or would be created."""
        found = os.statvfs(next(one for one in (path, *path.parents) if os.path.exists(one)))
        return cls(found.f_bavail * found.f_frsize / 1e6, found.f_favail if found.f_files else None)

    def __str__(self) -> str:
        files = f", {self.files} files" if self.files is not None and self.files < _PLENTY_FILES else ""
        return f"{self.mb / 1e3:.1f} GB{files} free" if self.mb >= _PLENTY_MB else f"{self.mb:.0f} MB{files} free"

    def lacks(self, mb: int, files: int) -> str:
        """The missing requirements, in words; empty if there is enough."""
        wanted = [f"{mb} MB"] if self.mb < mb else []
        if self.files is not None and self.files < files:
            wanted.append(f"room for {files} files")
        return " and ".join(wanted)


def shortage(home: Home) -> str:
    """Why the room may not suffice for a campaign, in words; empty if there is plenty."""
    room = Room.at(home.root)
    wanted = room.lacks(_PLENTY_MB, _PLENTY_FILES)
    return f"{home.root} has {room}; a campaign may need {wanted}" if wanted else ""


def want_to_go_on(home: Home) -> str:
    """Why work in the home cannot continue, in words, without a test write; empty if there is room."""
    room = Room.at(home.root)
    return _told(home, str(room)) if room.lacks(_GOING_ON_MB, _GOING_ON_FILES) else ""


def check_start(home: Home) -> None:
    """Check that there is enough room to start anything; quotas cannot be checked.

    Raises:
        InputError: there is too little.
    """
    room = Room.at(home.root)
    if wanted := room.lacks(_START_MB, _START_FILES):
        remedy = f"Free some space there, or set {HOME_VARIABLE} to a directory on another disk"
        raise InputError(HOME_VARIABLE, f"{home.root} has {room}, but {wanted} are needed to start", remedy)


def check_going_on(home: Home) -> None:
    """Check that processes in the home can continue to write, by writing a few bytes.

    Raises:
        NoRoomError: it cannot.
    """
    if told := want_to_go_on(home):
        raise NoRoomError(told)
    with naming_no_room(home):
        _write_probe(temporary_beside(home.root / "room"))


@contextlib.contextmanager
def naming_no_room(home: Home) -> Iterator[None]:
    """Turn errors of writes in the block into NoRoomError if there is no room or write access any more.

    Raises:
        NoRoomError: instead of the original error.
    """
    try:
        yield
    except NoRoomError:
        raise
    except OSError as exc:
        if not _is_gone(home, exc):
            raise
        raise NoRoomError(_told(home, f"{exc.strerror} ({Room.at(home.root)})")) from exc
    except (StorageError, ServiceError):
        check_going_on(home)  # databases and servers that cannot write fail in many ways, some without a message
        raise


def _is_gone(home: Home, exc: OSError) -> bool:
    is_ours = str(exc.filename or "").startswith(str(home.root))
    return exc.errno in _FULL or (exc.errno in _SHUT and is_ours)


def _write_probe(path: Path) -> None:
    try:
        with path.open("wb") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _told(home: Home, found: str) -> str:
    return (
        f"nothing more can be written to {home.root}: {found}. Nothing is lost: finished skills stay, and others "
        f"resume from their last checkpoint. Free some space ({_START_MB} MB at least), and start the campaign again"
    )
