"""When things happened in this process: written beside the run, read by the campaign's summary."""

from __future__ import annotations

import time

import psutil

from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.layout import RunDirectory

__all__ = ["mark", "marks", "write_timing"]

_marks: dict[str, float] = {}


def mark(name: str) -> None:
    """Note that `name` happened now; the first time counts."""
    _marks.setdefault(name, time.time())


def marks() -> dict[str, float]:
    """All that was noted in this process, in unix seconds, and when the process started."""
    return {"process_started": psutil.Process().create_time(), **_marks}


def write_timing(directory: RunDirectory) -> None:
    """Write the marks of this process and its compilations to the run's `timing.json`."""
    from flowrl_core.stages.compilation import compilations, loading_seconds

    facts = {"compilations": compilations(), "loading_seconds": round(loading_seconds(), 3)}
    write_json(directory.path / "timing.json", {**marks(), "written": time.time(), **facts})
