"""What a family of runs says of itself: what must be kept of what it made, what may go, and what a backup holds.

A family registers one `Family`. `stages.upkeep.families` names those of FlowRL; housekeeping, backup and restore take
them as an argument, ask them, and know none.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowrl_core.storage.damage import Damaged
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.runs import RunRecord
from flowrl_core.storage.registry import Registry

__all__ = ["DAY_S", "Family", "Rule", "View", "damage", "needed_sealed"]

DAY_S = 86_400.0


@dataclass(frozen=True)
class Rule:
    """One kind of garbage.

    Attributes:
        candidates: what may be garbage.
        why: why a candidate is garbage, in words; "" if it is not.
        locked: keeps everybody else from the candidate, or raises ConflictError if somebody has it.
        remove: called with the lock held.
    """

    candidates: Callable[[Home], Iterator[Path]]
    why: Callable[[View, Path], str]
    locked: Callable[[Home, Path], contextlib.AbstractContextManager[object]]
    remove: Callable[[View, Path], None]


def _nothing_needed(registry: Registry) -> Collection[str]:
    return ()


def _nothing_damaged(home: Home, registry: Registry, by_size: bool) -> Sequence[Damaged]:
    return ()


@dataclass(frozen=True)
class Family:
    """A family of runs.

    Attributes:
        name: in the rows of its runs, and of its folder of sealed directories.
        kept: names of the files of a run's directory that are kept after the run's end.
        contents: names in the store of versions that it needs now.
        sealed: names of its sealed directories that it needs now; those that open runs were sealed with come anyway.
        damaged: what of all that it counts on is not whole. The last argument: compare sizes only, not checksums.
        directories: names of the home's directories that are its own and belong into a backup.
        garbage: its own kinds of garbage.
    """

    name: str
    kept: tuple[str, ...]
    contents: Callable[[Registry], Collection[str]] = _nothing_needed
    sealed: Callable[[Registry], Collection[str]] = _nothing_needed
    damaged: Callable[[Home, Registry, bool], Sequence[Damaged]] = _nothing_damaged
    directories: tuple[str, ...] = ()
    garbage: Mapping[str, Rule] = field(default_factory=dict)


class View:
    """What rules decide by: read at most once from the registry.

    Args:
        families: those that are asked; what others need is not known, so nothing of it is garbage.
        keep_days: how long what is kept for people only stays, at least one.
        now: seconds since the epoch; None: the clock's.
    """

    def __init__(
        self, home: Home, registry: Registry, families: Sequence[Family], *, keep_days: int, now: float | None = None
    ) -> None:
        self.home = home
        self.registry = registry
        self.families = {family.name: family for family in families}
        self.keep_s = max(1, keep_days) * DAY_S
        self.now = time.time() if now is None else now

    @functools.cached_property
    def contents(self) -> frozenset[str]:
        """Names in the store of versions that a family needs."""
        return frozenset(name for family in self.families.values() for name in family.contents(self.registry))

    @functools.cached_property
    def unknown(self) -> frozenset[str]:
        """Families that have runs, but were not named: nobody can say what they need."""
        return frozenset(self.registry.runs.families() - self.families.keys())

    @functools.cached_property
    def sealed(self) -> frozenset[Path]:
        """The sealed directories that a family needs, or that an open run was prepared with."""
        return needed_sealed(self.home, self.registry, self.families.values())

    @functools.cached_property
    def _ended(self) -> Mapping[tuple[str, str, int], RunRecord]:
        return {(run.group, run.name, run.ordinal): run for run in self.registry.runs.ended()}

    def ended_run(self, path: Path) -> RunRecord | None:
        """The run whose directory this is, if it has ended."""
        name, _, ordinal = path.name.rpartition("-")
        return self._ended.get((path.parent.name, name, int(ordinal))) if ordinal.isdecimal() else None

    def age(self, path: Path) -> float:
        """Seconds since the path itself was changed or touched."""
        return self.now - path.lstat().st_mtime

    def is_young(self, path: Path) -> bool:
        """Whether a process may be about to name it in the registry."""
        return self.age(path) <= DAY_S


def damage(home: Home, registry: Registry, families: Iterable[Family], *, by_size: bool) -> list[Damaged]:
    """What of all that the families count on is not whole.

    Args:
        by_size: look at the sizes of files only; else at their checksums too.
    """
    return [one for family in families for one in family.damaged(home, registry, by_size)]


def needed_sealed(home: Home, registry: Registry, families: Iterable[Family]) -> frozenset[Path]:
    """The sealed directories that a family needs, or that an open run was prepared with."""
    told = {(family.name, digest) for family in families for digest in family.sealed(registry)}
    given = {(run.family, run.inputs) for run in registry.runs.under_way() if run.inputs is not None}
    return frozenset(home.sealed_directory(family, digest) for family, digest in told | given)
