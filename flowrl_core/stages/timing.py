"""Timestamps of events in this process: written to the run's directory, read by the campaign's summary."""

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
    """Note that `name` happened now; only the first call for a name counts."""
    if name not in _marks:
        _marks[name] = time.time()
        _cpu_seconds[name] = time.process_time()


def marks() -> dict[str, Any]:
    """All marks of this process in unix seconds, and when the process started.

    `cpu_seconds` is the processor time used at each mark, which stays comparable on a busy machine.
    """
    return {"process_started": _process_started(), **_marks, "cpu_seconds": dict(_cpu_seconds)}


def write_timing(directory: RunDirectory) -> None:
    """Write the marks of this process and its compilations to the run's `timing.json`."""
    from flowrl_core.compiled.cache import compilations, loading_seconds

    facts = {"compilations": compilations(), "loading_seconds": round(loading_seconds(), 3)}
    write_json(directory.path / "timing.json", {**marks(), "written": time.time(), **facts})


def _process_started() -> float:
    """When this process began, in unix seconds.

    Counted back from now where a clock since boot exists: psutil adds to a boot time that the kernel reports in whole
    seconds.
    """
    started = psutil.Process().create_time()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return started
    return started - psutil.boot_time() + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
