"""The directory for the temporary files of what was started under a record: nobody else has a name in it.

Libraries keep files of fixed names where temporary files go (Prefect's runner, 3.8.8: `runner_storage`), and the first
user of a machine who makes them shuts all others out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import replace

from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home

__all__ = ["remove_temporary", "temporary_variables", "with_temporary"]

_PREFIX = "flowrl-"


def with_temporary(home: Home, record: Record) -> Record:
    """The record, saved, with a directory that is there, and that only this user may enter.

    It is made where this machine's temporary files go: a local disk, and a name as short as sockets need it. Where
    nothing can be made there, in the home.
    """
    if not _is_ours(record.temporary):
        record = replace(record, temporary=_make(home))
        record.save(home)
    return record


def temporary_variables(record: Record) -> dict[str, str]:
    """What makes a program use it: all the names that Python looks at."""
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), record.temporary)


def remove_temporary(record: Record) -> None:
    """Remove it, with all that was left in it."""
    if _is_ours(record.temporary):
        shutil.rmtree(record.temporary, ignore_errors=True)


def _make(home: Home) -> str:
    with contextlib.suppress(OSError):
        return tempfile.mkdtemp(prefix=_PREFIX)
    return tempfile.mkdtemp(prefix=_PREFIX, dir=home.root)


def _is_ours(path: str) -> bool:
    """Whether it is still the one that was made: after a restart of the machine anybody could have taken its name."""
    try:
        found = os.lstat(path)
    except OSError:  # also of the empty name that a new record has
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
