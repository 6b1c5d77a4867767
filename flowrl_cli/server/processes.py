"""Start, find and stop processes that outlive the command that started them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["MARK_VARIABLE", "Started", "find", "marked", "reap", "spawn", "stop", "this_process"]

MARK_VARIABLE = "FLOWRL_EMBEDDED"
"""The variable that holds a record's mark, in the environment of all its processes and their children."""

_GRACE_S = 10.0
_POLL_S = 0.05

# Popen objects are kept: otherwise the interpreter warns that their processes still run, which is intended.
_spawned: list[subprocess.Popen[bytes]] = []

_INIT = 1
_ended: set[int] = set()


@dataclass(frozen=True)
class Started:
    """A process, distinguished from a later one with the same PID by its creation time (seconds since the epoch)."""

    name: str
    pid: int
    created: float


def this_process() -> Started:
    """Return the current process."""
    return Started("command", os.getpid(), psutil.Process().create_time())


def spawn(name: str, command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path) -> Started:
    """Start a process in its own session, so that Ctrl-C at the terminal does not reach it."""
    with log.open("a+b") as output:  # readable, too: see tasks.orchestration.server.lasting
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _spawned.append(process)
    return Started(name, process.pid, psutil.Process(process.pid).create_time())


def find(started: Started, mark: str = "") -> psutil.Process | None:
    """Return the process if it is alive: found by creation time, or by its mark, which does not depend on the clock."""
    try:
        process = psutil.Process(started.pid)
        is_same = abs(process.create_time() - started.created) < 1.0 or (mark and _carries(process, mark))
        return process if is_same and _runs(process) else None
    except psutil.Error:
        return None


def marked(mark: str) -> list[psutil.Process]:
    """Return all living processes whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        # Other users' processes hide their environment; a process may end during the search.
        with contextlib.suppress(psutil.Error, OSError):
            if _carries(process, mark) and _runs(process):
                found.append(process)
    return found


def stop(
    processes: Iterable[psutil.Process], *, grace: float = _GRACE_S, is_urgent: Callable[[], object] = lambda: False
) -> None:
    """Ask the processes to end (SIGTERM); kill those still alive after `grace` seconds, or once `is_urgent()`."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.resume()  # a suspended process would not see the request
    for process in _wait(processes, grace, is_urgent):
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(processes, grace)


def reap() -> None:
    """Reap ended processes that this one has inherited as the first process of a container without an init.

    Called periodically: a process that ended recently may be a child that other code here waits for.
    """
    global _ended
    if os.getpid() != _INIT:
        return
    before, _ended = _ended, set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if child.status() == psutil.STATUS_ZOMBIE:
                _ended.add(child.pid)
                if child.pid in before:
                    os.waitpid(child.pid, os.WNOHANG)


def _wait(
    processes: Iterable[psutil.Process], seconds: float, is_urgent: Callable[[], object] = lambda: False
) -> list[psutil.Process]:
    """Return the processes that still run after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline or is_urgent():
            break
        time.sleep(_POLL_S)
    return left


def _runs(process: psutil.Process) -> bool:
    """Whether it runs; an ended process stays a zombie while its parent is suspended."""
    with contextlib.suppress(psutil.Error):
        psutil.wait_procs([process], timeout=0)  # reaps it if it is a child of this process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _carries(process: psutil.Process, mark: str) -> bool:
    return process.environ().get(MARK_VARIABLE) == mark
