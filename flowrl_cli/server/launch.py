"""Start and stop the processes of a record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from flowrl_cli.server.output import begin_log, log_of
from flowrl_cli.server.processes import marked, spawn, stop
from flowrl_cli.server.record import Record
from flowrl_cli.server.temporary import remove_temporary, temporary_variables
from flowrl_core.installation import command
from flowrl_core.storage.layout import Home

__all__ = ["SERVER", "WORKERS", "launch", "launch_workers", "stop_recorded", "though_full"]

SERVER = "server"
WORKERS = "workers"


def launch(
    home: Home, record: Record, name: str, module: Sequence[str], *, environment: Mapping[str, str], directory: Path
) -> Record:
    """Start a module with this interpreter as the record's process `name`; return the updated, saved record."""
    log = log_of(directory, name)
    begin_log(log)
    environment = {**environment, **temporary_variables(record)}
    record = record.with_process(spawn(name, command(*module), environment=environment, directory=directory, log=log))
    record.save(home)
    return record


def launch_workers(home: Home, record: Record, *, environment: Mapping[str, str], directory: Path) -> Record:
    """Start the workers of the record's pools."""
    module = ["tasks.orchestration.server.workers", *record.pools]
    return launch(home, record, WORKERS, module, environment=environment, directory=directory)


def stop_recorded(home: Home, record: Record, *, is_urgent: Callable[[], object] = lambda: False) -> None:
    """Stop everything that was started under the record, and delete the record.

    Runs stop first, then workers, then the server they report to. Each has ten seconds to end by itself, or until
    `is_urgent` returns true.
    """
    workers = [worker] if (worker := record.alive(WORKERS)) else []
    server = [server] if (server := record.alive(SERVER)) else []
    for worker in workers:
        # A worker that is asked to end kills its runs at once; one that continues would start others.
        with contextlib.suppress(psutil.Error):
            worker.suspend()
    runs = [process for process in marked(record.mark) if process not in (*workers, *server)]
    for processes in (runs, workers, server):
        stop(processes, is_urgent=is_urgent)
    stop(marked(record.mark), is_urgent=is_urgent)
    remove_temporary(record)
    with contextlib.suppress(OSError):  # a file system that became read-only; the recorded processes are dead anyway
        record.remove(home)


@contextlib.contextmanager
def though_full(lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Hold the record's lock while stopping its processes; continue without it if the disk has no room for a lock."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(lock)
        yield
