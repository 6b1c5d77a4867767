"""The journal of language models' answers: one file per request, named by the hash of the request."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrl_core.storage.atomic import write_json

__all__ = ["FileJournal"]

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileJournal:
    """A journal in a directory, which need not exist yet. Processes may share it: files are written atomically."""

    directory: Path

    def read(self, key: str) -> Mapping[str, Any] | None:
        """The entry under the key; None if there is none or it cannot be read.

        Raises:
            ValueError: not a valid key.
        """
        path = self._path(key)
        try:
            entry = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as exc:
            logger.warning("%s cannot be read (%s): ignored", path, exc)
            return None
        if not isinstance(entry, dict) or entry.get("key") != key:
            logger.warning("%s is not a journal entry, or belongs to another key: ignored", path)
            return None
        return entry

    def write(self, key: str, entry: Mapping[str, Any]) -> None:
        """Store the entry durably; an existing one is replaced.

        Raises:
            ValueError: not a valid key, or not the entry's.
        """
        if entry.get("key") != key:
            raise ValueError(f"the entry names the key {entry.get('key')!r}, not {key!r}")
        write_json(self._path(key), dict(entry))

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):  # it becomes a file name
            raise ValueError(f"{key!r} is not a key of 64 hexadecimal digits")
        return self.directory / f"{key}.json"
