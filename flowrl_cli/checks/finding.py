"""The findings of `flowrl doctor`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from flowrl_core.errors import FlowRLError, InputError

__all__ = ["Diagnosis", "bounded"]


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check: what was found, and the command that fixes it (empty when nothing is wrong).

    `state`: `unknown` if the check was not possible, which is no problem by itself.
    """

    what: str
    state: Literal["ok", "wrong", "unknown"]
    found: str
    mend: str = ""


def bounded(what: str, examine: Callable[[], Iterable[Diagnosis]], *, seconds: float, mend: str) -> Iterator[Diagnosis]:
    """Yield the findings of one check; a check that fails, or takes too long, is a finding itself.

    Args:
        what: names what is checked.
        seconds: time limit.
        mend: the remedy for an unexpected failure of the check.
    """
    found: queue.SimpleQueue[Diagnosis | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for finding in examine():
                found.put(finding)
        except InputError as exc:
            found.put(Diagnosis(what, "wrong", f"{exc.field}: {exc.problem}", exc.remedy))
        except Exception as exc:
            found.put(Diagnosis(what, "wrong", _words(exc), mend))
        found.put(None)

    # A thread: code that hangs inside a library cannot be interrupted, only abandoned.
    threading.Thread(target=work, daemon=True).start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            finding = found.get(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty:
            yield Diagnosis(what, "wrong", f"was not checked within {seconds:.0f} s", mend)
            return
        if finding is None:
            return
        yield finding


def _words(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if isinstance(exc, FlowRLError):
        return " ".join(lines)
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__
