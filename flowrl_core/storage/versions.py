"""The store of experts' parameters: immutable trees named by their content, so that an unchanged one costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flowrl_core.errors import ConflictError, CorruptError
from flowrl_core.storage.atomic import crash_point, remove_directory
from flowrl_core.storage.checkpoints import content_hash, load_tree, save_tree, verify
from flowrl_core.storage.layout import Home

__all__ = ["get", "put"]

logger = logging.getLogger(__name__)


def put(home: Home, params: Any, *, metadata: Mapping[str, Any] | None = None) -> str:
    """The content hash under which the parameters are stored, durably; twice the same is stored once.

    Args:
        params: nested dicts of arrays, one expert's parameters.
        metadata: JSON-ready data kept beside them; the first writer's stays.
    """
    content = content_hash(params)
    directory = home.version(content)
    if directory.exists():
        try:
            verify(directory)
            return content
        except CorruptError as exc:
            logger.warning("%s; written again", exc)
            remove_directory(directory)
    try:
        save_tree(directory, params, metadata=metadata)
    except ConflictError:
        # Another process was quicker with the same parameters.
        verify(directory)
    crash_point("after_version_rename")
    return content


def get(home: Home, content: str) -> Any:
    """The parameters of this content, as nested dicts of numpy arrays.

    Raises:
        CorruptError: they are not there, or are not what their name says.
    """
    params, _ = load_tree(home.version(content))
    if content_hash(params) != content:
        raise CorruptError(f"version {content} in {home.versions} holds other parameters than its name says")
    return params
