"""Prepare a run as a Prefect task, and hold what it needs for as long as it lasts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler

from prefect import task

from flowrl_core.errors import ConflictError
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.directory import run_directory
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.timing import mark
from flowrl_core.storage.layout import Home, RunDirectory
from flowrl_core.storage.ownership import own_run
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.room import naming_no_room
from tasks.options import IDEMPOTENT
from tasks.orchestration.devices.slots import device_slots
from tasks.orchestration.runs.cancellation import heeding_cancellation
from tasks.orchestration.runs.termination import until_told
from tasks.orchestration.runs.watchdog import report_crash, watched
from tasks.report import LOGGERS, show_logs

__all__ = ["prepare_run", "workplace"]

_MANY = 10_000


@task(name="prepare", **IDEMPOTENT)
def prepare_run(run: int, config: SkillConfig, epoch: int) -> str:
    """Plan, remap and seed the run; the path of its sealed directory."""
    home = Home.from_environment()
    path = until_told(lambda _: prepare(home, run, config, epoch=epoch))
    mark("prepared")
    return str(path)


@contextlib.contextmanager
def workplace(run: int, attempt: int, stall_minutes: float) -> Iterator[int]:
    """Own the run and a device for the block, and keep its log; the epoch under which the run is claimed.

    Raises:
        ConflictError: another process works on the run, or the attempt is over.
        RunCancelled: see `heeding_cancellation`.
        NoRoomError: the disk became full meanwhile.
    """
    show_logs()
    home = Home.from_environment()
    with Registry.open(home) as registry:
        record, this = registry.runs.get(run), registry.attempts.get(attempt)
    if this.end is not None and record.verdict is None:
        raise ConflictError(f"attempt {this.number} of {record.skill} is over ({this.end}): another one does its work")
    directory = run_directory(home, record)
    with heeding_cancellation(attempt), own_run(directory), _logged(directory), device_slots():
        with Registry.open(home) as registry:
            epoch = registry.runs.claim(run)
        with watched(60.0 * stall_minutes, last_words=report_crash), naming_no_room(home):
            yield epoch


@contextlib.contextmanager
def _logged(directory: RunDirectory) -> Iterator[None]:
    """Append what the core says to the run's training.log, as soon as there is a directory for it."""
    handler = _LogHandler(directory)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _LogHandler(MemoryHandler):
    """Keeps lines in memory until the directory is sealed: before that it may be thrown away and made anew."""

    def __init__(self, directory: RunDirectory) -> None:
        super().__init__(capacity=_MANY)
        self._directory = directory

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        """Whether there is a place to write to."""
        if self.target is None and self._directory.config.is_file():
            target = logging.FileHandler(self._directory.log, encoding="utf-8")
            target.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self.setTarget(target)
        return self.target is not None

    def close(self) -> None:
        """Write what is left and close the file."""
        target = self.target
        super().close()
        if target is not None:
            target.close()
