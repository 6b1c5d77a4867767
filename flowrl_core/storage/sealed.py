"""Directories determined by their inputs: `sealed/<family>/<digest>`, named by the hash of the inputs.

The same inputs give the same directory: the first caller makes it, later ones find and verify it. It is written beside
its place, sealed by a manifest (the inputs, and the size and SHA-256 of every file), made durable and renamed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowrl_core.digest import digest
from flowrl_core.errors import CorruptError
from flowrl_core.storage import manifests
from flowrl_core.storage.atomic import (
    crash_point,
    publish_directory,
    remove_directory,
    remove_leftovers,
    temporary_beside,
)
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive

__all__ = ["inputs_hash", "seal", "sealing_lock"]

logger = logging.getLogger(__name__)


def inputs_hash(inputs: Mapping[str, Any]) -> str:
    """The hash (32 hex digits) of JSON-ready inputs; the order of keys does not matter."""
    return digest(dict(inputs), digits=32)


def seal(home: Home, family: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The complete sealed directory of these inputs; an existing one is only made again if it is damaged.

    Safe to kill at any point. Other callers with the same inputs wait for it.

    Args:
        inputs: JSON-ready; everything the content depends on, including the version of the code that makes it.
        make: writes the content into an existing, empty directory.

    Raises:
        Whatever `make` raises; nothing is left behind then.
    """
    directory = home.sealed_directory(family, inputs_hash(inputs))
    with exclusive(sealing_lock(directory), what=f"the sealed directory {directory.name}", wait=True):
        if _is_whole(directory):
            return directory
        remove_leftovers(directory)
        fresh = temporary_beside(directory)
        fresh.mkdir()
        try:
            make(fresh)
            manifests.write(fresh, family=family, inputs=dict(inputs))
            crash_point("before_sealed_rename")
            publish_directory(fresh, directory)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    crash_point("after_sealed_rename")
    return directory


def sealing_lock(directory: Path) -> Path:
    """The lock held while this sealed directory is made, found or removed."""
    return directory.with_name(directory.name + ".lock")


def _is_whole(directory: Path) -> bool:
    """Whether the directory is intact; if so it is touched, so that housekeeping spares it until a run names it.

    A damaged one is removed.
    """
    if not directory.exists():
        return False
    try:
        manifests.verify(directory)
    except CorruptError as exc:
        logger.warning("%s; made again", exc)
        remove_directory(directory)
        return False
    os.utime(directory)
    return True
