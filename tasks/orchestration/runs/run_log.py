"""The log of a run: messages of the core and the tasks appear on the run's page and in a file in its directory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler

from flowrl_core.storage.layout import RunDirectory

__all__ = ["logged", "show_logs"]

_LOGGERS = ("flowrl_core", "tasks")
"""The loggers whose messages belong to a run."""

_MANY = 10_000


def show_logs() -> None:
    """Show messages of the core and the tasks on the run's page: PREFECT_LOGGING_EXTRA_LOGGERS names these loggers."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)


@contextlib.contextmanager
def logged(directory: RunDirectory) -> Iterator[None]:
    """Append the core's messages to the run's log file, once its directory exists."""
    handler = _LogHandler(directory)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _LogHandler(MemoryHandler):
    """Keeps lines in memory until the directory is sealed: before that it may be discarded and made anew."""

    def __init__(self, directory: RunDirectory) -> None:
        super().__init__(capacity=_MANY)
        self._directory = directory

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        """Whether the directory can be written to."""
        if self.target is None and self._directory.config.is_file():
            target = logging.FileHandler(self._directory.log, encoding="utf-8")
            target.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self.setTarget(target)
        return self.target is not None

    def close(self) -> None:
        """Write the remaining lines and close the file."""
        target = self.target
        super().close()
        if target is not None:
            target.close()
