"""When things happened in this process: written beside the run, read by the campaign's summary."""

from __future__ import annotations

import time
from typing import Any

import psutil

from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.layout import RunDirectory

__all__ = ["mark", "marks", "write_timing"]

_marks: dict[str, float] = {}
_cpu_seconds: dict[str, float] = {}


def mark(name: str) -> None:
    """Note that `name` happened now; the first time counts."""
    if name not in _marks:
        _marks[name] = time.time()
        _cpu_seconds[name] = time.process_time()


def marks() -> dict[str, Any]:
    """All that was noted in this process, in unix seconds, and when the process started.

    `cpu_seconds` tells how much processor time the process had used by then: on a busy machine that is what can be
    compared.
    """
    return {"process_started": _process_started(), **_marks, "cpu_seconds": dict(_cpu_seconds)}


def write_timing(directory: RunDirectory) -> None:
    """Write the marks of this process and its compilations to the run's `timing.json`."""
    from flowrl_core.compiled.cache import compilations, loading_seconds

    facts = {"compilations": compilations(), "loading_seconds": round(loading_seconds(), 3)}
    write_json(directory.path / "timing.json", {**marks(), "written": time.time(), **facts})


def _process_started() -> float:
    """When this process began, in unix seconds.

    Counted back from now where there is a clock since the system's start: psutil adds to a start that the kernel tells
    in whole seconds.
    """
    started = psutil.Process().create_time()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return started
    return started - psutil.boot_time() + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
