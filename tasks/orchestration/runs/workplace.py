"""The resources of a run of any family while a process works on it: its directory, its claim, its devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flowrl_core.errors import ConflictError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import own_run
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.room import naming_no_room
from tasks.orchestration.devices.slots import device_slots
from tasks.orchestration.devices.survey import Role
from tasks.orchestration.runs.cancellation import heeding_cancellation
from tasks.orchestration.runs.run_log import logged, show_logs
from tasks.orchestration.runs.watchdog import report_crash, watched

__all__ = ["workplace"]


@contextlib.contextmanager
def workplace(
    run: int,
    attempt: int,
    *,
    stall_minutes: float,
    role: Role = "train",
    slots: int = 1,
) -> Iterator[int]:
    """Own the run and its device slots for the block, keep its log, and yield the epoch of its claim.

    The order matters: see README.md. A run that waits for slots is owned, but neither claimed nor watched.

    Args:
        run, attempt: their ids in the registry.
        stall_minutes: the process kills itself after this time without a `beat`.
        role, slots: the kind and number of its devices, see `device_slots`.

    Raises:
        ConflictError: another process works on the run, or the attempt is over.
        InputError, ServiceError: see `device_slots`.
        RunCancelled: see `heeding_cancellation`.
        NoRoomError: the disk became full.
    """
    show_logs()
    home = Home.from_environment()
    with Registry.open(home) as registry:
        record, this = registry.runs.get(run), registry.attempts.get(attempt)
    directory = home.run_directory(record.group, record.name, record.ordinal)
    if this.end is not None and record.verdict is None:
        which = f"attempt {this.number} of {directory.path.name}"
        raise ConflictError(f"{which} is over ({this.end}): another attempt does its work")
    with heeding_cancellation(attempt), own_run(directory), logged(directory), device_slots(role, slots):
        with Registry.open(home) as registry:
            epoch = registry.runs.claim(run)
        with watched(60.0 * stall_minutes, last_words=report_crash), naming_no_room(home):
            yield epoch
