"""Start and stop what a record tells of."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from flowrl_cli.processes import marked, spawn, stop
from flowrl_cli.record import Record
from flowrl_core.installation import command
from flowrl_core.storage.layout import Home

__all__ = ["SERVER", "WORKERS", "launch", "launch_workers", "log_of", "stop_recorded"]

SERVER = "server"
WORKERS = "workers"


def launch(
    home: Home, record: Record, name: str, module: Sequence[str], *, environment: Mapping[str, str], directory: Path
) -> Record:
    """Start a module of this interpreter as the record's process of this name; the record with it, saved."""
    log = log_of(directory, name)
    record = record.with_process(spawn(name, command(*module), environment=environment, directory=directory, log=log))
    record.save(home)
    return record


def launch_workers(home: Home, record: Record, *, environment: Mapping[str, str], directory: Path) -> Record:
    """Start the workers of the record's pools."""
    module = ["tasks.orchestration.workers", *record.pools]
    return launch(home, record, WORKERS, module, environment=environment, directory=directory)


def log_of(directory: Path, name: str) -> Path:
    """What a process prints."""
    return directory / f"{name}.log"


def stop_recorded(home: Home, record: Record) -> None:
    """Stop all that was started under the record, and forget it.

    Runs first, then workers, then the server they report to.
    """
    workers = [worker] if (worker := record.alive(WORKERS)) else []
    server = [server] if (server := record.alive(SERVER)) else []
    for worker in workers:
        # A worker that is asked to end kills its runs at once; one that goes on would start others.
        with contextlib.suppress(psutil.Error):
            worker.suspend()
    stop(process for process in marked(record.mark) if process not in (*workers, *server))
    stop(workers)
    stop(server)
    stop(marked(record.mark))
    record.remove(home)
