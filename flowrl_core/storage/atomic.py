"""Atomic writes, and named points at which a test can kill the process."""

from __future__ import annotations

import collections
import filecmp
import json
import os
import shutil
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from flowrl_core.errors import ConflictError

__all__ = [
    "crash_point",
    "is_temporary",
    "publish_directory",
    "remove_directory",
    "remove_leftovers",
    "sync_directory",
    "sync_tree",
    "temporary_beside",
    "write_bytes",
    "write_json",
    "write_text",
]

_CRASH_VARIABLE = "FLOWRL_CRASH_AT"
_CRASH_FILE_VARIABLE = "FLOWRL_CRASH_FILE"
_TEMPORARY = ".tmp-"
_passings: collections.Counter[str] = collections.Counter()


def crash_point(name: str) -> None:
    """Kill this process (SIGKILL) if a test asks for it.

    FLOWRL_CRASH_AT is `name`, or `name:k` for the k-th time that a process passes the point; it affects every process
    with it in its environment. FLOWRL_CRASH_FILE is for processes that already run: the path of a file, which need not
    exist, with such a text. Exactly one of the processes that pass the point is killed: the one that renames the file
    to FILE.PID. With `name:k:hang` it sleeps forever instead.
    """
    if wanted := os.environ.get(_CRASH_VARIABLE):
        if _is_passing(name, wanted):
            os.kill(os.getpid(), signal.SIGKILL)
    elif path := os.environ.get(_CRASH_FILE_VARIABLE):
        _crash_by_file(name, Path(path))


def _crash_by_file(name: str, path: Path) -> None:
    try:
        wanted = path.read_text(encoding="utf-8").strip()
        if not _is_passing(name, wanted):
            return
        path.rename(f"{path}.{os.getpid()}")
    except FileNotFoundError:  # nothing was asked for, or another process renamed it first
        return
    if not wanted.endswith(":hang"):
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(60)


def _is_passing(name: str, wanted: str) -> bool:
    """Whether this is the requested passing of the point."""
    wanted_name, _, number = wanted.removesuffix(":hang").partition(":")
    if wanted_name != name:
        return False
    _passings[wanted] += 1
    return _passings[wanted] == int(number or 1)


def temporary_beside(path: Path) -> Path:
    """A new name beside `path`, on the same file system, that every reader ignores (`is_temporary`)."""
    return path.with_name(f"{path.name}{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}")


def is_temporary(path: Path) -> bool:
    """Whether the name was made by `temporary_beside`: unfinished work, possibly of a killed process."""
    return _TEMPORARY in path.name


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically and durably: readers, even after a power loss, see the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of the text as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of the value as indented JSON; NaN and infinity are refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make all files and names below a directory durable."""
    for directory, _, files in os.walk(path, topdown=False):
        for name in files:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(directory))


def publish_directory(temporary: Path, final: Path) -> None:
    """Give a finished directory its final name, durably.

    If an identical directory has that name already, `temporary` is removed.

    Raises:
        ConflictError: a directory with different content has the name.
    """
    sync_tree(temporary)
    try:
        os.rename(temporary, final)
    except OSError as exc:
        if not final.is_dir():
            raise
        if not _is_same_tree(temporary, final):
            raise ConflictError(f"{final} exists with different content; remove it if it is not needed") from exc
        shutil.rmtree(temporary)
    sync_directory(final.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory if it exists; it is renamed first, so that nobody sees it half removed."""
    doomed = temporary_beside(path)
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return
    sync_directory(path.parent)
    shutil.rmtree(doomed)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; only the owner of `path` may call it."""
    if path.parent.is_dir():
        for left in path.parent.iterdir():
            if left.name.startswith(path.name + _TEMPORARY):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_same_tree(a: Path, b: Path) -> bool:
    names = sorted(p.relative_to(a) for p in a.rglob("*"))
    if names != sorted(p.relative_to(b) for p in b.rglob("*")):
        return False
    return all(filecmp.cmp(a / n, b / n, shallow=False) if (a / n).is_file() else (b / n).is_dir() for n in names)
