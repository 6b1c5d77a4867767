"""What nothing needs any more, and its removal: safe while campaigns run, and safe to kill.

Whatever is removed is looked at once more while its lock is held, and loses its name first.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from flowrl_core.errors import ConflictError
from flowrl_core.stages.skill.process import archive
from flowrl_core.storage.atomic import crash_point, is_temporary, remove_directory
from flowrl_core.storage.layout import Home, RunDirectory
from flowrl_core.storage.ownership import exclusive, own_run
from flowrl_core.storage.records.runs import RunRecord
from flowrl_core.storage.registry import Registry

__all__ = ["KINDS", "Garbage", "Kind", "find_garbage", "remove_garbage"]

Kind = Literal["records", "runs", "versions", "leftovers", "learners"]
KINDS: tuple[Kind, ...] = ("records", "runs", "versions", "leftovers", "learners")

_DAY_S = 86_400.0
_CONTENT = re.compile(r"[0-9a-f]{32}")
_WRITER = re.compile(r"\.tmp-(\d+)-[0-9a-f]+$")
_UNFINISHED = ("*", "versions/*", "runs/*/*", "runs/*/*/checkpoints/*", "archive/*/*", "cache/learners/*")


@dataclass(frozen=True)
class Garbage:
    """A file or directory below the home that nothing needs.

    Attributes:
        why: in words.
        bytes: of all its files.
    """

    kind: Kind
    path: Path
    why: str
    bytes: int


def find_garbage(
    home: Home, registry: Registry, *, keep_days: int, what: Collection[Kind] = KINDS, now: float | None = None
) -> tuple[Garbage, ...]:
    """All garbage of these kinds, by kind and path. Nothing younger than a day is.

    Args:
        keep_days: how long records of ended runs and unused learners stay.
        now: seconds since the epoch; None: the clock's.
    """
    view = _View(home, registry, keep_days, now)
    found = []
    for kind in (kind for kind in KINDS if kind in what):
        rule = _RULES[kind]
        for path in sorted(rule.candidates(home)):
            if why := rule.why(view, path):
                found.append(Garbage(kind, path, why, _size(path)))
    return tuple(found)


def remove_garbage(
    home: Home, registry: Registry, garbage: Sequence[Garbage], *, keep_days: int, now: float | None = None
) -> tuple[Garbage, ...]:
    """Remove what was found and is still garbage; what was removed."""
    return tuple(one for one in garbage if _remove(_View(home, registry, keep_days, now), one))


def _remove(view: _View, garbage: Garbage) -> bool:
    rule = _RULES[garbage.kind]
    with contextlib.suppress(ConflictError), rule.locked(view.home, garbage.path):
        if garbage.path.exists() and rule.why(view, garbage.path):
            crash_point("before_removal")
            rule.remove(view, garbage.path)
            return True
    return False


class _View:
    """What decides on garbage, read at most once from the registry."""

    def __init__(self, home: Home, registry: Registry, keep_days: int, now: float | None) -> None:
        self.home = home
        self.keep_s = max(1, keep_days) * _DAY_S
        self.now = time.time() if now is None else now
        self._registry = registry

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """Contents of versions."""
        return self._registry.library.needed_contents()

    @functools.cached_property
    def _runs(self) -> Mapping[tuple[str, str, int], RunRecord]:
        return {(run.campaign, run.skill, run.ordinal): run for run in self._registry.runs.ended()}

    def ended_run(self, path: Path) -> RunRecord | None:
        """The run whose directory this is, if it has ended."""
        skill, _, ordinal = path.name.rpartition("-")
        return self._runs.get((path.parent.name, skill, int(ordinal))) if ordinal.isdecimal() else None

    def age(self, path: Path) -> float:
        """Seconds since the path itself was changed or touched."""
        return self.now - path.lstat().st_mtime


def _why_records(view: _View, path: Path) -> str:
    age = view.age(path)
    return f"records of a run that ended {age / _DAY_S:.0f} days ago" if age > view.keep_s else ""


def _why_run(view: _View, path: Path) -> str:
    run = view.ended_run(path)
    if run is None or run.ended_at is None or view.now - run.ended_at <= _DAY_S:
        return ""
    return f"its run has ended ({run.verdict}), but its process died before it had tidied up"


def _why_version(view: _View, path: Path) -> str:
    # A young one may be of a run that commits just now.
    if path.name in view.needed or view.age(path) <= _DAY_S:
        return ""
    return "no head, no bundle and no open run needs it"


def _why_leftover(view: _View, path: Path) -> str:
    writer = _WRITER.search(path.name)
    with contextlib.suppress(FileNotFoundError):
        is_old = min(map(view.age, (path, *path.rglob("*")))) > _DAY_S
        if is_old and not (writer and psutil.pid_exists(int(writer[1]))):
            return "unfinished work of a process that died"
    return ""


def _why_learner(view: _View, path: Path) -> str:
    age = view.age(path)
    return f"compiled programs and worlds that were last used {age / _DAY_S:.0f} days ago" if age > view.keep_s else ""


def _directories(parent: Path, pattern: str) -> Iterator[Path]:
    return (path for path in parent.glob(pattern) if path.is_dir() and not is_temporary(path))


def _unfinished(home: Home) -> Iterator[Path]:
    return (path for pattern in _UNFINISHED for path in home.root.glob(pattern) if is_temporary(path))


def _drop(view: _View, path: Path) -> None:
    remove_directory(path)


def _drop_unfinished(view: _View, path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _archive(view: _View, path: Path) -> None:
    run = view.ended_run(path)
    assert run is not None
    archive(view.home, run)


@dataclass(frozen=True)
class _Rule:
    """One kind of garbage.

    Attributes:
        candidates: what may be garbage.
        why: why a candidate is garbage; "" if it is not.
        locked: keeps everybody else from the candidate, or raises ConflictError if somebody has it.
        remove: called with the lock held.
    """

    candidates: Callable[[Home], Iterator[Path]]
    why: Callable[[_View, Path], str]
    locked: Callable[[Home, Path], contextlib.AbstractContextManager[object]]
    remove: Callable[[_View, Path], None]


_RULES: dict[Kind, _Rule] = {
    "records": _Rule(
        candidates=lambda home: _directories(home.archive, "*/*"),
        why=_why_records,
        locked=lambda home, path: contextlib.nullcontext(),
        remove=_drop,
    ),
    "runs": _Rule(
        candidates=lambda home: _directories(home.runs, "*/*"),
        why=_why_run,
        locked=lambda home, path: own_run(RunDirectory(path)),
        remove=_archive,
    ),
    "versions": _Rule(
        candidates=lambda home: (p for p in _directories(home.versions, "*") if _CONTENT.fullmatch(p.name)),
        why=_why_version,
        locked=lambda home, path: exclusive(home.versions_lock, what="the store of versions", wait=True),
        remove=_drop,
    ),
    "leftovers": _Rule(
        candidates=_unfinished,
        why=_why_leftover,
        locked=lambda home, path: contextlib.nullcontext(),
        remove=_drop_unfinished,
    ),
    "learners": _Rule(
        candidates=lambda home: _directories(home.cache / "learners", "*"),
        why=_why_learner,
        locked=lambda home, path: exclusive(path.with_suffix(".lock"), what="the compilation cache"),
        remove=_drop,
    ),
}


def _size(path: Path) -> int:
    sizes = 0
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            sizes += file.lstat().st_size if not file.is_dir() else 0
    return sizes
