"""The output of servers and workers: one log per start, of which a few are kept, and the last error in it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home

__all__ = ["begin_log", "last_words", "log_of", "story"]

_KEPT = 3
"""Number of earlier logs, newest first: `.1`, `.2`, ..."""
_TAIL_BYTES = 64_000
_LONGEST = 300
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit|Failed)(?::|$)")
_NEWS = re.compile(r"\b(?:INFO|DEBUG)\b")
"""Matches log lines that report success: they do not explain why a process was killed afterwards."""
_FRAME = re.compile(r"^[\s|+]*")
"""The prefix of traceback lines: exception groups are drawn as trees."""


def log_of(directory: Path, name: str) -> Path:
    """Return the path of a process's log."""
    return directory / f"{name}.log"


def story(home: Home, record: Record, name: str) -> str:
    """Return the last message of a process of the record, and where its log is."""
    path = log_of(home.workers_prefect(record.machine) if record.elsewhere else home.prefect, name)
    return f"{last_words(path) or 'no reason was given'} (log: {path})"


def begin_log(path: Path) -> None:
    """Prepare an empty log for a process that is about to start; earlier logs become `path`.1 and so on.

    The process bounds the file's size itself: see `tasks.orchestration.server.lasting`.
    """
    if not path.exists() or not path.stat().st_size:
        return
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, _KEPT + 1))]
    with contextlib.suppress(OSError):  # no room on the disk: keep writing to the old log
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)


def last_words(path: Path) -> str:
    """Return the last error in a log as one line; without any, its last line, or "" if that is no complaint."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in (_FRAME.sub("", one).rstrip() for one in text.splitlines()) if line]
    last = lines[-1] if lines and not _NEWS.search(lines[-1]) else ""
    found = next((line for line in reversed(lines) if _ERROR.match(line)), last)
    return found if len(found) <= _LONGEST else f"{found[:_LONGEST]}..."
