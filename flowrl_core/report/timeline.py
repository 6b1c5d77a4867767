"""When a campaign's runs ran, read from their records: speed-up, overlap and handovers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowrl_core.storage.records.skill_runs import SkillRunRecord

__all__ = [
    "Handovers",
    "Overlap",
    "RunTrace",
    "SpeedUp",
    "greatest_overlap",
    "handovers",
    "most_at_once",
    "speed_up",
    "trace_of",
]

_TIMES = ("process_started", "first_line", "first_update", "ended", "compilations")


@dataclass(frozen=True)
class RunTrace:
    """A run's recorded timeline. Times are unix seconds; None if unknown.

    Attributes:
        skill: the skill it trained.
        needs: the other skills of its plan.
        training: the training arguments it ran with.
        first_line: when the first line of FlowRL ran in its process.
        first_update: when its first update finished.
        compilations: functions compiled, rather than loaded from the cache.
        ended: when it was committed.
        updates: when each update finished.
    """

    skill: str
    needs: frozenset[str] = frozenset()
    training: Mapping[str, Any] = field(default_factory=dict)
    process_started: float | None = None
    first_line: float | None = None
    first_update: float | None = None
    ended: float | None = None
    compilations: int | None = None
    updates: tuple[float, ...] = ()

    @property
    def is_timed(self) -> bool:
        """Whether the run's first line and end are known."""
        return self.first_line is not None and self.ended is not None

    @property
    def duration(self) -> float | None:
        """Seconds from its first line to its end."""
        return None if self.first_line is None or self.ended is None else self.ended - self.first_line


@dataclass(frozen=True)
class SpeedUp:
    """Sum of the runs' times over the wall time, and the maximum that the skill graph allows (seconds; ratios)."""

    total: float
    wall: float
    longest_chain: float

    @property
    def achieved(self) -> float:
        """How many times faster than running sequentially."""
        return self.total / self.wall if self.wall > 0 else 1.0

    @property
    def ceiling(self) -> float:
        """The speed-up with unlimited slots: the longest chain of dependants must run sequentially."""
        return self.total / self.longest_chain if self.longest_chain > 0 else 1.0


@dataclass(frozen=True)
class Overlap:
    """Two runs that trained at the same time: how long, and how many updates each finished in that interval."""

    skills: tuple[str, str]
    seconds: float
    updates: tuple[int, int]


@dataclass(frozen=True)
class Handovers:
    """Seconds from a dependency's end to its dependant's first line, and how many runs waited for a slot instead."""

    delays: tuple[float, ...]
    num_waited_for_slot: int


def trace_of(run: SkillRunRecord, directory: Path) -> RunTrace:
    """The timeline of a registered run, with the times found in its directory; missing times are None."""
    timing = _read(directory / "timing.json")
    steps = run.plan.skills if run.plan else ()
    training = run.config.training.model_dump() if run.config else {}
    times = {name: timing.get(name) for name in _TIMES}
    updates = tuple(line["time"] for line in _read_lines(directory / "metrics.jsonl") if "time" in line)
    return RunTrace(run.skill, frozenset(steps) - {run.skill}, training, **times, updates=updates)


def speed_up(runs: Sequence[RunTrace]) -> SpeedUp | None:
    """The speed-up of running in parallel; None if no run is timed."""
    timed = {run.skill: run for run in runs if run.is_timed}
    if not timed:
        return None
    spent = {skill: run.duration or 0.0 for skill, run in timed.items()}
    graph = {skill: run.needs & timed.keys() for skill, run in timed.items()}
    chain: dict[str, float] = {}
    for skill in TopologicalSorter(graph).static_order():
        chain[skill] = spent[skill] + max((chain[need] for need in graph[skill]), default=0.0)
    wall = max(run.ended or 0.0 for run in timed.values()) - min(run.first_line or 0.0 for run in timed.values())
    return SpeedUp(sum(spent.values()), wall, max(chain.values()))


def most_at_once(runs: Iterable[RunTrace]) -> int:
    """The maximum number of runs in progress at the same time."""
    timed = [run for run in runs if run.is_timed]
    return max((_under_way(timed, run.first_line or 0.0) for run in timed), default=0)


def greatest_overlap(runs: Iterable[RunTrace]) -> Overlap | None:
    """The two runs whose training overlapped by the most updates of both; None if none overlapped."""
    found = [overlap for a, b in combinations(runs, 2) if (overlap := _overlap(a, b)) is not None]
    return max(found, key=lambda overlap: min(overlap.updates), default=None)


def _overlap(a: RunTrace, b: RunTrace) -> Overlap | None:
    if not a.updates or not b.updates:
        return None
    start, end = max(a.updates[0], b.updates[0]), min(a.updates[-1], b.updates[-1])
    counts = [sum(start <= at <= end for at in run.updates) for run in (a, b)]
    return Overlap((a.skill, b.skill), end - start, (counts[0], counts[1])) if start < end else None


def handovers(runs: Sequence[RunTrace]) -> Handovers:
    """How quickly dependants started after their dependencies.

    A dependant can start after the later of two events: its last dependency ended, or a run ended while all slots
    were taken. In the second case it waited for a slot, and its delay says nothing about the handover.
    """
    timed = [run for run in runs if run.is_timed]
    ends = {run.skill: run.ended or 0.0 for run in timed}
    slots = most_at_once(timed)
    freed = [end for end in ends.values() if _under_way(timed, end, just_before=True) >= slots]
    delays: list[float] = []
    num_waited = 0
    for run in timed:
        needs = run.needs & ends.keys()
        if not needs:
            continue
        start, ready = run.first_line or 0.0, max(ends[need] for need in needs)
        if any(ready < end <= start for end in freed):
            num_waited += 1
        else:
            delays.append(start - ready)
    return Handovers(tuple(delays), num_waited)


def _under_way(runs: Iterable[RunTrace], at: float, *, just_before: bool = False) -> int:
    if just_before:
        return sum((run.first_line or 0.0) < at <= (run.ended or 0.0) for run in runs)
    return sum((run.first_line or 0.0) <= at < (run.ended or 0.0) for run in runs)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The readable lines of a JSON-lines file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    values = []
    for line in lines:
        with contextlib.suppress(ValueError):
            values.append(json.loads(line))
    return [value for value in values if isinstance(value, dict)]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
