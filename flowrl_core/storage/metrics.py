"""Metrics of a run: one JSON line per update, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrl_core.storage.atomic import write_bytes

__all__ = ["MetricsFile"]


@dataclass(frozen=True)
class MetricsFile:
    """A file of JSON lines, each with an `update`. Only the run's owner may use it; it need not exist yet.

    A kill can leave the last line incomplete; readers skip it and `cut` drops it.
    """

    path: Path

    def append(self, line: Mapping[str, Any]) -> None:
        """Add the figures of one update.

        Raises:
            ValueError: a figure is NaN or infinite, which JSON cannot represent.
        """
        with self.path.open("ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def cut(self, update: int) -> None:
        """Drop the lines after this update, and invalid lines."""
        if not self.path.is_file():
            return
        kept = [line for line in self.path.read_bytes().splitlines() if _update_of(line) <= update]
        write_bytes(self.path, b"".join(line + b"\n" for line in kept))


def _update_of(line: bytes) -> float:
    try:
        return json.loads(line)["update"]
    except (ValueError, KeyError, TypeError):
        return math.inf
