"""Handling of SIGINT, SIGTERM and SIGHUP at the start of a FlowRL process.

Through exec, a process inherits which signals its parent ignores and blocks: a script's `&` ignores SIGINT, `nohup`
ignores SIGHUP, a supervisor may block any. A FlowRL process resets in its first lines what was not meant for it, so
that it and its children can be terminated no matter how they were started.
"""

from __future__ import annotations

import signal

__all__ = ["REQUESTS", "outlives_terminal", "restore"]

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def outlives_terminal() -> bool:
    """Whether SIGHUP is ignored on purpose, as by `nohup` or `trap '' HUP`.

    If SIGTERM is ignored too, the parent did not mean to detach from a terminal.
    """
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and signal.getsignal(signal.SIGTERM) != signal.SIG_IGN


def restore() -> None:
    """Make the process react to SIGINT, SIGTERM and SIGHUP (as SIGTERM, unless it `outlives_terminal`).

    Existing handlers stay. Call it in the main thread.
    """
    is_detached = outlives_terminal()
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),  # while it is ignored, the exit status of a child is lost
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
    if not is_detached and signal.getsignal(signal.SIGHUP) in (signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # Last, because pending signals are delivered now.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
