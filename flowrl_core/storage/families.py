"""The description of a family of runs: which of its files must be kept, are garbage, or belong in a backup.

Each family registers one `Family`. `stages.upkeep.families` lists those of FlowRL; housekeeping, backup and restore
take them as an argument and depend on none.
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
        candidates: the paths that may be garbage.
        why: why a candidate is garbage, in words; "" if it is not.
        locked: locks the candidate, or raises ConflictError if another process holds it.
        remove: removes the candidate; called with the lock held.
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
        name: used in the rows of its runs, and for its folder of sealed directories.
        kept: names of the files of a run's directory that are kept after the run's end.
        contents: names in the store of versions that it currently needs.
        sealed: names of its sealed directories that it currently needs; those of open runs are always needed.
        damaged: the damaged or missing directories that it relies on. Last argument: compare only sizes, not checksums.
        directories: names of the home's directories that belong to it and to a backup.
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
    """The facts that rules decide by, each read at most once from the registry.

    Args:
        families: those that are asked; what others need is unknown, so nothing of theirs is garbage.
        keep_days: how many days to keep what only people read, at least one.
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
        """Families that have runs but were not passed, so that their needs are unknown."""
        return frozenset(self.registry.runs.families() - self.families.keys())

    @functools.cached_property
    def sealed(self) -> frozenset[Path]:
        """The sealed directories that a family needs, or that an open run was prepared with."""
        return needed_sealed(self.home, self.registry, self.families.values())

    @functools.cached_property
    def _ended(self) -> Mapping[tuple[str, str, int], RunRecord]:
        return {(run.group, run.name, run.ordinal): run for run in self.registry.runs.ended()}

    def ended_run(self, path: Path) -> RunRecord | None:
        """The ended run that this directory belongs to; None if there is none."""
        name, _, ordinal = path.name.rpartition("-")
        return self._ended.get((path.parent.name, name, int(ordinal))) if ordinal.isdecimal() else None

    def age(self, path: Path) -> float:
        """Seconds since the path itself was changed or touched."""
        return self.now - path.lstat().st_mtime

    def is_young(self, path: Path) -> bool:
        """Whether the path is so new that a process may be about to name it in the registry."""
        return self.age(path) <= DAY_S


def damage(home: Home, registry: Registry, families: Iterable[Family], *, by_size: bool) -> list[Damaged]:
    """The damaged or missing directories that the families rely on.

    Args:
        by_size: compare only file sizes, not checksums.
    """
    return [one for family in families for one in family.damaged(home, registry, by_size)]


def needed_sealed(home: Home, registry: Registry, families: Iterable[Family]) -> frozenset[Path]:
    """The sealed directories that a family needs, or that an open run was prepared with."""
    told = {(family.name, digest) for family in families for digest in family.sealed(registry)}
    given = {(run.family, run.inputs) for run in registry.runs.under_way() if run.inputs is not None}
    return frozenset(home.sealed_directory(family, digest) for family, digest in told | given)
