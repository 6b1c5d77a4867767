"""The Python interpreter of a command and of the processes it starts, with the settings that FlowRL needs.

Warnings as errors break libraries, disabled assertions change them, and file names in another encoding than UTF-8
differ from those in databases. An interpreter started with such settings is replaced within the same process.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import MutableMapping

from flowrl_core.installation import command

__all__ = ["make_usual", "usual_environment"]

_UNUSUAL = (
    "PYTHONASYNCIODEBUG",
    "PYTHONDEVMODE",
    "PYTHONINSPECT",
    "PYTHONOPTIMIZE",
    "PYTHONSTARTUP",
    "PYTHONWARNINGS",
)


def make_usual() -> None:
    """Restart the command in the same process if its interpreter is unusual; in any case, no output raises an error."""
    _open_streams()
    is_utf8 = sys.getfilesystemencoding() == "utf-8"
    if not is_utf8 or sys.warnoptions or sys.flags.optimize or sys.flags.inspect or sys.flags.dev_mode:
        environment = dict(os.environ)
        usual_environment(environment)
        os.execve(sys.executable, command("flowrl_cli.entry", *sys.argv[1:]), environment)
    for name in _UNUSUAL:
        os.environ.pop(name, None)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold undecodable bytes, and PYTHONIOENCODING may not cover all printed characters.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def usual_environment(environment: MutableMapping[str, str]) -> None:
    """Make the environment start a Python that uses UTF-8 and has no debugging settings."""
    for name in _UNUSUAL:
        environment.pop(name, None)
    environment["PYTHONUTF8"] = "1"


def _open_streams() -> None:
    """Open standard streams that were closed at the start: otherwise the next opened file would take their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
