"""The archive: the files that are kept of a run after it has ended."""

from __future__ import annotations

import shutil
from collections.abc import Collection

from flowrl_core.storage.atomic import (
    crash_point,
    publish_directory,
    remove_directory,
    remove_leftovers,
    temporary_beside,
)
from flowrl_core.storage.layout import RunDirectory

__all__ = ["archive"]


def archive(directory: RunDirectory, kept: RunDirectory, names: Collection[str]) -> None:
    """Copy the files of these names to `kept`, then remove the directory; nothing if the directory is gone already.

    Only the run's owner (`ownership.own_run`) may call it, after the run has ended.
    """
    remove_leftovers(directory.path)
    remove_leftovers(kept.path)
    if not directory.path.is_dir():
        return
    if not kept.path.is_dir():
        kept.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = temporary_beside(kept.path)
        fresh.mkdir()
        for name in names:
            if (directory.path / name).is_file():
                shutil.copy2(directory.path / name, fresh / name)
        publish_directory(fresh, kept.path)
    crash_point("after_archive")
    remove_directory(directory.path)
