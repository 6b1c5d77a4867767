"""The entry point of the `flowrl` command; handles requests to end even while the command is still being imported.

So this module imports nothing slow, only parts of the interpreter.
"""

from __future__ import annotations

import _signal
import os
from typing import NoReturn

__all__ = ["listen", "main"]

_REQUESTS = {_signal.SIGINT: "SIGINT", _signal.SIGTERM: "SIGTERM", _signal.SIGHUP: "SIGHUP"}


def listen() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end this process at once, with the exit codes of `process.signals.heed`.

    Nothing has begun yet. If SIGHUP alone is ignored, it stays ignored; see `flowrl_core.signals.outlives_terminal`.
    """
    ignores = {number for number in _REQUESTS if _signal.getsignal(number) == _signal.SIG_IGN}
    for number in _REQUESTS:
        if number != _signal.SIGHUP or _signal.SIGHUP not in ignores or _signal.SIGTERM in ignores:
            _signal.signal(number, _end)


def main() -> NoReturn:
    """Run the `flowrl` command."""
    listen()
    from flowrl_core.installation import anchor, prefer_installed

    anchor()
    prefer_installed()
    from flowrl_cli import app

    app.main()


def _end(number: int, frame: object) -> None:
    try:  # noqa: SIM105 - importing contextlib may be what was interrupted
        os.write(2, f"flowrl: stopped by {_REQUESTS[number]}\n".encode())
    except OSError:  # the terminal has closed
        pass
    os._exit(128 + number)


if __name__ == "__main__":
    main()
