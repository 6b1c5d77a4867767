"""A private directory for the temporary files of the processes of a record.

Libraries put files with fixed names where temporary files go (Prefect's runner, 3.8.8: `runner_storage`), and the first
user on a machine who creates them locks all others out.
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
    """Return the record, saved, with an existing directory that only this user may enter.

    It is created where this machine's temporary files go: a local disk, and a path short enough for sockets. If that is
    impossible, it is created in the home.
    """
    if not _is_ours(record.temporary):
        record = replace(record, temporary=_make(home))
        record.save(home)
    return record


def temporary_variables(record: Record) -> dict[str, str]:
    """Return the variables that make a program use it: all the names that Python reads."""
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), record.temporary)


def remove_temporary(record: Record) -> None:
    """Remove the directory with everything in it."""
    if _is_ours(record.temporary):
        shutil.rmtree(record.temporary, ignore_errors=True)


def _make(home: Home) -> str:
    with contextlib.suppress(OSError):
        return tempfile.mkdtemp(prefix=_PREFIX)
    return tempfile.mkdtemp(prefix=_PREFIX, dir=home.root)


def _is_ours(path: str) -> bool:
    """Whether it is still the directory that was created: after a reboot, another user could have taken its name."""
    try:
        found = os.lstat(path)
    except OSError:  # also for the empty path of a new record
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
