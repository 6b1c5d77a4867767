"""The `flowrl` command: its groups of commands, and the handling of errors.

Commands are named by import path and loaded only when they run, so that `flowrl --help` imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from flowrl_cli.process.interpreter import make_usual
from flowrl_cli.process.signals import Interrupted, asked, end_at_once, heed
from flowrl_core.errors import FlowRLError, InputError, StorageError

__all__ = ["app", "main", "run"]

_DEBUG = "FLOWRL_DEBUG"
_NO = ("", "0", "false", "no", "off")
_INTERRUPTED = 130


def _version() -> str:
    from importlib.metadata import version

    return version("flowrl")


# Plain text help: rich's Markdown renderer alone costs a tenth of a second.
app = App(
    name="flowrl",
    help="Learn a library of skills by reinforcement learning; each skill is one Prefect flow run.",
    help_format="plaintext",
    version=_version,
    suppress_keyboard_interrupt=False,  # otherwise every request to end would exit with 130, silently
)

for _at, _name, _what in (
    ("campaign:campaign", "campaign", "Learn the targets and all skills they need; run it again to resume."),
    ("status:status", "status", "Show what a campaign has learned (needs no server)."),
    ("logs:logs", "logs", "Show the training log of a skill's latest run."),
    ("experts:experts", "experts", "List the experts of the library."),
    ("plan:plan", "plan", "Show the plan that reaches a skill."),
    ("propose:propose", "propose", "Ask a language model for skills; show question, answer and gate results."),
    ("servers:up", "up", "Start what this machine needs: server, workers."),
    ("servers:down", "down", "Stop only what `up` or `campaign` started here."),
    ("devices:app", "devices", "List device slots; `devices probe` measures a run's memory."),
    ("doctor:doctor", "doctor", "Check everything FlowRL needs, and say how to fix what is wrong."),
    ("backup:backup", "backup", "Back up the registry, experts and records of this home."),
    ("backup:restore", "restore", "Create a home from a backup."),
):
    app.command(f"flowrl_cli.commands.{_at}", name=_name, help=_what)

for _group, _command, _help, _what in (
    ("knowledge", "check", "Work with knowledge bases.", "Check a knowledge base and plan each of its skills."),
    (
        "programs",
        "check",
        "Work with done and reward expressions.",
        "Prove an expression bounded and not trivial.",
    ),
    ("env", "fluents", "Work with environments.", "List the fluents, actions and targets of an environment."),
):
    _sub = App(name=_group, help=_help)
    _sub.command(f"flowrl_cli.commands.{_group}:{_command}", name=_command, help=_what)
    app.command(_sub)


def main() -> NoReturn:
    """Run the command and exit with the code of `run`."""
    make_usual()
    try:
        heed()
        code = run(sys.argv[1:])
        end_at_once()
        _flush()
    except Interrupted as exc:  # before or after `run`, or again while `run` reported the first
        code = exc.code
        end_at_once()
        _flush()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Return the exit code of one command line: 0 success, 1 target not reached or failure, 2 unusable input.

    After a request to end: 130 for SIGINT (Ctrl-C), 143 for SIGTERM, 129 for SIGHUP or if nobody reads the output.
    An error is one line on stderr; `FLOWRL_DEBUG=1` shows the traceback instead.
    """
    try:
        with contextlib.suppress(ImportError):  # the command or `doctor` reports missing packages
            from flowrl_cli.process.surroundings import settle

            settle()
        code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        code = code if isinstance(code, int) else 0
        if not code:
            sys.stdout.flush()
        return code
    except Interrupted as exc:
        return _fail(str(exc), exc.code)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        _flush()  # the reader (head, less) went away
        return 1
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except Exception as exc:
        if request := asked():
            return _fail(str(request), request.code)
        if os.environ.get(_DEBUG, "").lower() not in _NO:
            raise
        return _fail(*_explain(exc))


def _explain(exc: Exception) -> tuple[str, int]:
    if isinstance(exc, CycloptsError):
        from flowrl_cli.request.usage import usage

        return usage(exc), 2
    if lacking := _lacking():
        return lacking, 1
    if isinstance(exc, FlowRLError):
        return str(exc), 2 if isinstance(exc, InputError) else 1
    if isinstance(exc, PermissionError) and exc.filename:
        return f"{exc.filename}: {exc.strerror}. Give yourself access, or use another directory", 1
    if isinstance(exc, OSError):
        return f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc), 1
    if isinstance(exc, ImportError):
        return f"{exc}{_taken_from(exc)}. `flowrl doctor` says what is wrong with this installation", 1
    return f"unexpected {type(exc).__name__}: {exc}. {_DEBUG}=1 shows where; please report it", 1


def _lacking() -> str:
    """Return what this installation lacks, if anything: that is then the cause of any error."""
    try:
        from flowrl_cli.checks.installed import check_installation

        check_installation()
    except (ImportError, StorageError) as exc:
        return str(exc) if isinstance(exc, StorageError) else ""
    return ""


def _taken_from(exc: ImportError) -> str:
    """Return the file of the package whose import failed: another file of the same name may shadow it."""
    package = (exc.name or "").partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None)
    return f" ({package} is {file})" if file else ""


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # the terminal has closed
        print("flowrl:", " ".join(message.split()), file=sys.stderr)
    return code


def _flush() -> None:
    """Discard output that can no longer be written: Python would retry at exit, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
