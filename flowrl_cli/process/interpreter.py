"""The interpreter of a command, and of what it starts, as FlowRL needs it, whatever was set for other programs.

Warnings that are errors break libraries, assertions that are left out change them, and names of files that are not
UTF-8 are other names to databases. An interpreter that was started so is replaced by another one, in the same process.
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
    """Begin this command anew if its interpreter is unusual; in any case, let nothing that is printed be an error."""
    _open_streams()
    is_utf8 = sys.getfilesystemencoding() == "utf-8"
    if not is_utf8 or sys.warnoptions or sys.flags.optimize or sys.flags.inspect or sys.flags.dev_mode:
        environment = dict(os.environ)
        usual_environment(environment)
        os.execve(sys.executable, command("flowrl_cli.entry", *sys.argv[1:]), environment)
    for name in _UNUSUAL:
        os.environ.pop(name, None)
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold bytes that are no text, and PYTHONIOENCODING may be poorer than what we print.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def usual_environment(environment: MutableMapping[str, str]) -> None:
    """Let a Python that is started with the environment be a usual one: of UTF-8, and without what is for debugging."""
    for name in _UNUSUAL:
        environment.pop(name, None)
    environment["PYTHONUTF8"] = "1"


def _open_streams() -> None:
    """Open the streams that were closed at the start: the next file that is opened would be taken for one of them."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
