"""What servers and workers print: a file for each start, of which a few are kept, and the last error in it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home

__all__ = ["begin_log", "last_words", "log_of", "story"]

_KEPT = 3
"""Earlier logs, newest first: `.1`, `.2`, ..."""
_TAIL_BYTES = 64_000
_LONGEST = 300
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit|Failed)(?::|$)")
_NEWS = re.compile(r"\b(?:INFO|DEBUG)\b")
"""In a line of a log that says what went well: whoever is killed after it has said nothing of why."""
_FRAME = re.compile(r"^[\s|+]*")
"""What stands before a line of a traceback: groups of exceptions are drawn as trees."""


def log_of(directory: Path, name: str) -> Path:
    """What a process prints."""
    return directory / f"{name}.log"


def story(home: Home, record: Record, name: str) -> str:
    """What a process of the record said last, and where all of it is."""
    path = log_of(home.workers_prefect(record.machine) if record.elsewhere else home.prefect, name)
    return f"{last_words(path) or 'no reason was given'} (log: {path})"


def begin_log(path: Path) -> None:
    """Let a process that is about to start print to an empty file; what those before it printed is `path`.1 and so on.

    The file itself is bounded by its process: see `tasks.orchestration.server.lasting`.
    """
    if not path.exists() or not path.stat().st_size:
        return
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, _KEPT + 1))]
    with contextlib.suppress(OSError):  # a disk without room: then it goes on in the old one
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)


def last_words(path: Path) -> str:
    """The last error that a log tells of, in one line; without any, its last line; empty where that is no complaint."""
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
