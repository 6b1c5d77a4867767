"""The cores and memory of this machine available to this process: the minimum of all limits.

Limits and their sources:

- the machine itself; the cores that this process may run on (`sched_getaffinity`, which covers cpusets, `taskset` and
  the core binding of batch systems);
- cgroup v2: `cpu.max` (quota and period in microseconds), `memory.max`, `memory.high`;
- cgroup v1: `cpu.cfs_quota_us` over `cpu.cfs_period_us`, `memory.limit_in_bytes`, `hierarchical_memory_limit` of
  `memory.stat`;
- RLIMIT_AS, with which some batch systems limit a job's memory.

A group is limited by its own values and by those of all groups above it (kernel documentation, cgroup-v2.rst and
cgroup-v1/memory.rst), as far as this process can see them: in a container, often only from the container's own group
down.
"""

from __future__ import annotations

import math
import os
import re
import resource
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

__all__ = ["Allotment", "Limit", "allotment", "group_limits"]

_ROOT = Path("/")
_NONE = 1 << 60
"""Values from here on mean that there is no limit: cgroup v1 has no other sign of it."""
_MEMORY_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Limit:
    """An amount (cores or bytes), and the reason for the limit."""

    amount: float
    why: str


@dataclass(frozen=True)
class Allotment:
    """The resources available to the runs that this process may start on this machine.

    Attributes:
        cores: numbers of the cores to run on: as many whole cores as are granted, at least one.
        share: granted cores, possibly a fraction.
        memory: granted bytes.
        cores_by, memory_by: what sets the limit.
    """

    cores: tuple[int, ...]
    share: float
    memory: int
    cores_by: str
    memory_by: str


def allotment(root: Path = _ROOT) -> Allotment:
    """Return the resources available to this process.

    Args:
        root: the directory that holds `proc` and the control groups' files.
    """
    allowed = _allowed_cores()
    total = psutil.cpu_count() or 1
    cores, memory = group_limits(root)
    by_affinity = Limit(len(allowed), "the machine" if len(allowed) >= total else "the cores this process is bound to")
    share = min([by_affinity, *cores], key=lambda limit: limit.amount)
    room = min([Limit(psutil.virtual_memory().total, "the machine"), *memory, *_rlimit()], key=lambda one: one.amount)
    number = max(1, math.floor(share.amount))
    return Allotment(_chosen(allowed, number), share.amount, int(room.amount), share.why, room.why)


def group_limits(root: Path = _ROOT) -> tuple[list[Limit], list[Limit]]:
    """Return the limits of this process's control groups: on cores, and on bytes of memory."""
    cores: list[Limit] = []
    memory: list[Limit] = []
    for directory in _groups(root):
        for limits, found in ((cores, _cores_of(directory)), (memory, _memory_of(directory))):
            limits.extend(Limit(amount, f"control group {path}") for path, amount in found)
    return cores, memory


def _chosen(allowed: list[int], number: int) -> tuple[int, ...]:
    """Return `number` of the cores; the host name decides which, so that containers do not all choose the same."""
    if number >= len(allowed):
        return tuple(allowed)
    first = zlib.crc32(socket.gethostname().encode()) % len(allowed)
    return tuple(sorted((allowed[first:] + allowed[:first])[:number]))


def _allowed_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _rlimit() -> list[Limit]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [Limit(soft, "ulimit -v")]


def _groups(root: Path) -> Iterator[Path]:
    """Yield the directories of this process's groups and of all groups above them, in each mounted hierarchy."""
    own: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        match line.split(":", 2):
            case [number, names, group]:
                own.update(dict.fromkeys(names.split(",") if number != "0" else [""], group))
    for kinds, top, place in _mounts(root):
        path = next((own[kind] for kind in sorted(kinds) if kind in own), None)
        if path is None:
            continue
        directory = root / place.lstrip("/")
        below = PurePosixPath(path)
        # A container sees its own group as the top; the path may be the machine's, or begin above the top.
        inside = below.relative_to(top) if below.is_relative_to(top) and ".." not in below.parts else PurePosixPath()
        for part in (inside, *inside.parents):
            if (directory / part).is_dir():
                yield directory / part


def _mounts(root: Path) -> Iterator[tuple[set[str], str, str]]:
    """Yield each mounted hierarchy: its controllers ("" for version 2), its top group, and its mount point."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.partition(" ")
        words = [_ESCAPED.sub(lambda found: chr(int(found[1], 8)), word) for word in before.split()]
        if kind in ("cgroup", "cgroup2") and len(words) > 4:
            yield ({""} if kind == "cgroup2" else set(options.split(" ")[-1].split(","))), words[3], words[4]


def _cores_of(directory: Path) -> Iterator[tuple[Path, float]]:
    quota, period = directory / "cpu.cfs_quota_us", directory / "cpu.cfs_period_us"
    words = _lines(directory / "cpu.max")[:1] or [" ".join([*_lines(quota)[:1], *_lines(period)[:1]])]
    match words[0].split():
        case [allowed, span] if allowed.isdecimal() and span.isdecimal() and int(span) and int(allowed):
            yield directory, int(allowed) / int(span)


def _memory_of(directory: Path) -> Iterator[tuple[Path, float]]:
    texts = [text for name in _MEMORY_FILES for text in _lines(directory / name)[:1]]
    # The minimum over all groups above, visible or not.
    stated = (line.split() for line in _lines(directory / "memory.stat"))
    texts += [words[1] for words in stated if len(words) == 2 and words[0].startswith("hierarchical_memory_l")]
    for text in texts:
        if text.strip().isdecimal() and 0 < int(text) < _NONE:
            yield directory, int(text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
