"""The store of parameters: immutable trees named by their content hash, so that equal ones are stored once."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowrl_core.errors import ConflictError, CorruptError
from flowrl_core.storage.atomic import crash_point, remove_directory
from flowrl_core.storage.checkpoints import content_hash, load_tree, save_tree
from flowrl_core.storage.layout import Home
from flowrl_core.storage.manifests import verify
from flowrl_core.storage.ownership import exclusive

__all__ = ["get", "put"]

logger = logging.getLogger(__name__)


def put(home: Home, params: Any, *, metadata: Mapping[str, Any] | None = None) -> str:
    """Store the parameters durably and return their content hash; equal parameters are stored once.

    Args:
        params: nested dicts of arrays.
        metadata: JSON-ready data stored with them; the first writer's stays.
    """
    content = content_hash(params)
    directory = home.version(content)
    with exclusive(home.versions_lock, what="the store of versions", wait=True):
        if _is_usable(directory):
            return content
    try:
        save_tree(directory, params, metadata=metadata)
    except ConflictError:
        # Another process stored the same parameters first.
        verify(directory)
    crash_point("after_version_rename")
    return content


def get(home: Home, content: str) -> Any:
    """The parameters with this content hash, as nested dicts of numpy arrays.

    Raises:
        CorruptError: they are missing, or do not match the hash.
    """
    params, _ = load_tree(home.version(content))
    if content_hash(params) != content:
        raise CorruptError(f"version {content} in {home.versions} contains parameters that do not match its name")
    return params


def _is_usable(directory: Path) -> bool:
    """Whether the version is usable; if so it is touched, so that housekeeping spares it until it is committed."""
    if not directory.exists():
        return False
    try:
        verify(directory)
    except CorruptError as exc:
        logger.warning("%s; written again", exc)
        remove_directory(directory)
        return False
    os.utime(directory)
    return True
