"""Room on the disk of a home: how much is needed to start and to go on, and what is said when it is gone.

One place decides, for `doctor`, for what refuses to start, and for what ends because it cannot go on.
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

# A campaign on the shipped knowledge base leaves some hundred MB: checkpoints, versions, databases, compiled programs.
_PLENTY_MB, _PLENTY_FILES = 2_000, 20_000
# The databases of an embedded server with their logs, one run's compiled programs and checkpoints.
_START_MB, _START_FILES = 64, 500
# So that what ends for want of room can still write that it has.
_GOING_ON_MB, _GOING_ON_FILES = 8, 50

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What a disk without room says, one over its quota, and one that has become read-only."""
_SHUT = {errno.EACCES, errno.EPERM}
"""What is said of the home too, once it has become somebody else's."""
_PROBE = b"\0" * 4_096


@dataclass(frozen=True)
class Room:
    """What a file system has left for this user.

    Attributes:
        mb: megabytes.
        files: how many more files it can name; None where it has no such limit.
    """

    mb: float
    files: int | None

    @classmethod
    def at(cls, path: Path) -> Room:
        """That of the file system on which the path is, or would be made."""
        found = os.statvfs(next(one for one in (path, *path.parents) if os.path.exists(one)))
        return cls(found.f_bavail * found.f_frsize / 1e6, found.f_favail if found.f_files else None)

    def __str__(self) -> str:
        files = f", {self.files} files" if self.files is not None and self.files < _PLENTY_FILES else ""
        return f"{self.mb / 1e3:.1f} GB{files} free" if self.mb >= _PLENTY_MB else f"{self.mb:.0f} MB{files} free"

    def lacks(self, mb: int, files: int) -> str:
        """What is needed and not there, in words; empty if all is."""
        wanted = [f"{mb} MB"] if self.mb < mb else []
        if self.files is not None and self.files < files:
            wanted.append(f"room for {files} files")
        return " and ".join(wanted)


def shortage(home: Home) -> str:
    """Why the room may not last for a campaign, in words; empty if there is plenty."""
    room = Room.at(home.root)
    wanted = room.lacks(_PLENTY_MB, _PLENTY_FILES)
    return f"{home.root} has {room}; a campaign may need {wanted}" if wanted else ""


def want_to_go_on(home: Home) -> str:
    """Why nothing can go on in the home, in words, without a try to write; empty if there is room."""
    room = Room.at(home.root)
    return _told(home, str(room)) if room.lacks(_GOING_ON_MB, _GOING_ON_FILES) else ""


def check_start(home: Home) -> None:
    """Nothing, if there is room enough to start anything at all; what a quota leaves cannot be seen.

    Raises:
        InputError: there is not.
    """
    room = Room.at(home.root)
    if wanted := room.lacks(_START_MB, _START_FILES):
        remedy = f"Free some space there, or set {HOME_VARIABLE} to a directory on another disk"
        raise InputError(HOME_VARIABLE, f"{home.root} has {room}, but {wanted} are needed to start", remedy)


def check_going_on(home: Home) -> None:
    """Nothing, if what is at work in the home can go on writing: a few bytes are written to see it.

    Raises:
        NoRoomError: it cannot.
    """
    if told := want_to_go_on(home):
        raise NoRoomError(told)
    with naming_no_room(home):
        _write_probe(temporary_beside(home.root / "room"))


@contextlib.contextmanager
def naming_no_room(home: Home) -> Iterator[None]:
    """Within the block, a write that fails since there is no room, or no right to write any more, is named so.

    Raises:
        NoRoomError: in the place of that error.
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
        check_going_on(home)  # databases and servers that cannot write end in many ways, and some without a word
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
