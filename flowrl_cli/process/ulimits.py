"""Shell limits on the processes that a command starts (`ulimit`, `umask`): raised where possible, else reported."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass

from flowrl_cli.checks.finding import Diagnosis
from flowrl_core.errors import InputError

__all__ = ["check_ulimits", "examine_limits", "widen"]

_OWNERS = 0o700
_PLENTY = 4


@dataclass(frozen=True)
class _Need:
    """The minimum that server, workers and runs need of a resource; `unit` is the shell's unit for it.

    (A server alone has about forty files open, and a run about forty threads.)
    """

    resource: int
    option: str
    what: str
    least: int
    unit: int = 1


_NEEDS = (
    _Need(resource.RLIMIT_NOFILE, "-n", "open files", 256),
    _Need(resource.RLIMIT_NPROC, "-u", "processes and threads of this user", 256),
    # A server's database grows, and compiled learners are large files.
    _Need(resource.RLIMIT_FSIZE, "-f", "blocks of 1024 bytes in a file", 256 << 20, 1024),
)


def widen() -> None:
    """Raise the limits that may be raised, and let this user read and write created files."""
    for need in _NEEDS:
        soft, hard = resource.getrlimit(need.resource)
        if _is_less(soft, need.least) and soft != hard:
            enough = _PLENTY * need.least
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(need.resource, (hard if _is_less(hard, enough) else enough, hard))
    os.umask(os.umask(_OWNERS) & ~_OWNERS)


def check_ulimits() -> None:
    """Check that every limit is enough for a server, workers and runs.

    Raises:
        InputError: one is not.
    """
    for error in _refusals():
        raise error


def examine_limits() -> Iterator[Diagnosis]:
    """Yield the findings of `flowrl doctor` on limits: only those that are too low."""
    for error in _refusals():
        yield Diagnosis(error.field, "wrong", error.problem, error.remedy)


def _refusals() -> Iterator[InputError]:
    for need in _NEEDS:
        soft, _ = resource.getrlimit(need.resource)
        if _is_less(soft, need.least):
            field, least = f"ulimit {need.option}", need.least // need.unit
            problem = f"{soft // need.unit} {need.what} are allowed, and FlowRL needs up to {least}"
            yield InputError(field, problem, f"`{field} {least}` or more, in a shell that is allowed to raise it")


def _is_less(limit: int, least: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < least
