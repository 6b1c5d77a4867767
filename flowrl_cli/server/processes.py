"""Processes that outlive the command that started them: how they are started, recognised and stopped."""

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
"""In the environment of all that was started for one record, children included: its mark."""

_GRACE_S = 10.0
_POLL_S = 0.05

# Popen objects are kept, or the interpreter warns that their processes still run: they are meant to.
_spawned: list[subprocess.Popen[bytes]] = []

_INIT = 1
_ended: set[int] = set()


@dataclass(frozen=True)
class Started:
    """A process, told apart from a later one of the same number by its creation time (seconds since the epoch)."""

    name: str
    pid: int
    created: float


def this_process() -> Started:
    """The process that asks."""
    return Started("command", os.getpid(), psutil.Process().create_time())


def spawn(name: str, command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path) -> Started:
    """Start a process in a session of its own, so that a Ctrl-C at the terminal does not reach it."""
    with log.open("a+b") as output:  # to be read, too: see tasks.orchestration.server.lasting
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
    """The process if it lives: known by its creation time, or by the mark, which a clock set anew does not change."""
    try:
        process = psutil.Process(started.pid)
        is_same = abs(process.create_time() - started.created) < 1.0 or (mark and _carries(process, mark))
        return process if is_same and _runs(process) else None
    except psutil.Error:
        return None


def marked(mark: str) -> list[psutil.Process]:
    """All living processes whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        # Others' processes do not show their environment; ours may end while we look.
        with contextlib.suppress(psutil.Error, OSError):
            if _carries(process, mark) and _runs(process):
                found.append(process)
    return found


def stop(
    processes: Iterable[psutil.Process], *, grace: float = _GRACE_S, is_urgent: Callable[[], object] = lambda: False
) -> None:
    """Ask the processes to end (SIGTERM); kill those that live on after `grace` seconds, or once `is_urgent`."""
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
    """Take leave of ended processes that this one has inherited as the first process of a container without an init.

    Called from time to time: one that is new may be a child whose end somebody here waits for.
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
    """The processes that still run after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline or is_urgent():
            break
        time.sleep(_POLL_S)
    return left


def _runs(process: psutil.Process) -> bool:
    """Whether it runs: one that has ended may stay as a zombie for as long as its parent is suspended."""
    with contextlib.suppress(psutil.Error):
        psutil.wait_procs([process], timeout=0)  # takes leave of a child of our own
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _carries(process: psutil.Process, mark: str) -> bool:
    return process.environ().get(MARK_VARIABLE) == mark
