"""The requests to end, SIGINT, SIGTERM and SIGHUP, as a process of ours finds them when it begins.

A process inherits, through exec, which signals its parent ignores and which it blocks: a script's `&` ignores SIGINT,
`nohup` ignores SIGHUP, a supervisor may block any. What nobody meant for us is undone in a process's first lines, so
that it can be asked to end however it was started, and so can all that it starts.
"""

from __future__ import annotations

import signal

__all__ = ["REQUESTS", "outlives_terminal", "restore"]

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def outlives_terminal() -> bool:
    """Whether SIGHUP is ignored on purpose, as `nohup` and `trap '' HUP` do it.

    One who ignores SIGTERM as well has not thought of a terminal.
    """
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and signal.getsignal(signal.SIGTERM) != signal.SIG_IGN


def restore() -> None:
    """Heed the requests to end whatever was inherited, SIGHUP as SIGTERM unless it `outlives_terminal`.

    Handlers that are there already stay. Call it in the main thread.
    """
    is_detached = outlives_terminal()
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),  # while it is ignored, nobody learns how a child has ended
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
    if not is_detached and signal.getsignal(signal.SIGHUP) in (signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # Last: what has waited behind the mask comes now.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
