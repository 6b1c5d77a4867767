"""Garbage and its removal: safe while campaigns run, and safe to kill.

Each item is checked again while its lock is held, and renamed before it is deleted. This module has the rules common to
all families; each family provides its own rules and says what it needs.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from flowrl_core.errors import ConflictError
from flowrl_core.stages.upkeep.families import FAMILIES
from flowrl_core.storage.archive import archive
from flowrl_core.storage.atomic import crash_point, is_temporary, remove_directory
from flowrl_core.storage.families import DAY_S, Family, Rule, View
from flowrl_core.storage.layout import Home, RunDirectory
from flowrl_core.storage.ownership import exclusive, own_run
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.sealed import sealing_lock

__all__ = ["Garbage", "find_garbage", "kinds", "remove_garbage"]

_CONTENT = re.compile(r"[0-9a-f]{32}")
_WRITER = re.compile(r"\.tmp-(\d+)-[0-9a-f]+$")
_UNFINISHED = ("*", "versions/*", "sealed/*/*", "runs/*/*", "runs/*/*/checkpoints/*", "archive/*/*", "cache/learners/*")


@dataclass(frozen=True)
class Garbage:
    """A file or directory below the home that nothing needs.

    Attributes:
        why: in words.
        bytes: of all its files.
    """

    kind: str
    path: Path
    why: str
    bytes: int


def kinds(families: Sequence[Family] = FAMILIES) -> tuple[str, ...]:
    """All kinds of garbage, in the order in which they are found."""
    return tuple(_rules(families))


def find_garbage(
    home: Home,
    registry: Registry,
    *,
    keep_days: int,
    what: Collection[str] | None = None,
    families: Sequence[Family] = FAMILIES,
    now: float | None = None,
) -> tuple[Garbage, ...]:
    """All garbage of these kinds, by kind and path. Nothing younger than a day is garbage.

    Args:
        keep_days: how long records of ended runs and unused learners stay.
        what: kinds; None: all.
        families: those that are asked. While another family has runs, no version and nothing of its own is garbage.
        now: seconds since the epoch; None: the clock's.
    """
    view = View(home, registry, families, keep_days=keep_days, now=now)
    found = []
    for kind, rule in _rules(families).items():
        if what is None or kind in what:
            for path in sorted(rule.candidates(home)):
                if why := rule.why(view, path):
                    found.append(Garbage(kind, path, why, _size(path)))
    return tuple(found)


def remove_garbage(
    home: Home,
    registry: Registry,
    garbage: Sequence[Garbage],
    *,
    keep_days: int,
    families: Sequence[Family] = FAMILIES,
    now: float | None = None,
) -> tuple[Garbage, ...]:
    """Remove the items that are still garbage, and return those removed."""
    rules = _rules(families)

    def is_removed(one: Garbage) -> bool:
        # Read again for each item: what is needed may have changed.
        return _remove(rules[one.kind], View(home, registry, families, keep_days=keep_days, now=now), one.path)

    return tuple(one for one in garbage if is_removed(one))


def _remove(rule: Rule, view: View, path: Path) -> bool:
    with contextlib.suppress(ConflictError), rule.locked(view.home, path):
        if path.exists() and rule.why(view, path):
            crash_point("before_removal")
            rule.remove(view, path)
            return True
    return False


def _rules(families: Sequence[Family]) -> dict[str, Rule]:
    return _COMMON | {kind: rule for family in families for kind, rule in family.garbage.items()}


def _why_records(view: View, path: Path) -> str:
    age = view.age(path)
    return f"records of a run that ended {age / DAY_S:.0f} days ago" if age > view.keep_s else ""


def _why_run(view: View, path: Path) -> str:
    run = view.ended_run(path)
    if run is None or run.family not in view.families or run.ended_at is None or view.now - run.ended_at <= DAY_S:
        return ""
    return f"its run has ended ({run.verdict}), but its process died before cleaning up"


def _why_version(view: View, path: Path) -> str:
    if view.unknown or path.name in view.contents or view.is_young(path):
        return ""
    return "no result and no run needs it that is under way or may go on"


def _why_sealed(view: View, path: Path) -> str:
    if path.parent.name not in view.families or path in view.sealed or view.is_young(path):
        return ""
    return "no run under way was prepared with it, and its family does not need it"


def _why_leftover(view: View, path: Path) -> str:
    writer = _WRITER.search(path.name)
    with contextlib.suppress(FileNotFoundError):
        is_old = min(map(view.age, (path, *path.rglob("*")))) > DAY_S
        if is_old and not (writer and psutil.pid_exists(int(writer[1]))):
            return "unfinished files of a dead process"
    return ""


def _directories(parent: Path, pattern: str) -> Iterator[Path]:
    return (path for path in parent.glob(pattern) if path.is_dir() and not is_temporary(path))


def _unfinished(home: Home) -> Iterator[Path]:
    return (path for pattern in _UNFINISHED for path in home.root.glob(pattern) if is_temporary(path))


def _drop(view: View, path: Path) -> None:
    remove_directory(path)


def _drop_unfinished(view: View, path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _archive(view: View, path: Path) -> None:
    run = view.ended_run(path)
    assert run is not None
    kept = view.home.archived_run(run.group, run.name, run.ordinal)
    archive(RunDirectory(path), kept, view.families[run.family].kept)


def _size(path: Path) -> int:
    sizes = 0
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            sizes += file.lstat().st_size if not file.is_dir() else 0
    return sizes


_COMMON: dict[str, Rule] = {
    "records": Rule(
        candidates=lambda home: _directories(home.archive, "*/*"),
        why=_why_records,
        locked=lambda home, path: contextlib.nullcontext(),
        remove=_drop,
    ),
    "runs": Rule(
        candidates=lambda home: _directories(home.runs, "*/*"),
        why=_why_run,
        locked=lambda home, path: own_run(RunDirectory(path)),
        remove=_archive,
    ),
    "versions": Rule(
        candidates=lambda home: (p for p in _directories(home.versions, "*") if _CONTENT.fullmatch(p.name)),
        why=_why_version,
        locked=lambda home, path: exclusive(home.versions_lock, what="the store of versions", wait=True),
        remove=_drop,
    ),
    "sealed": Rule(
        candidates=lambda home: (p for p in _directories(home.sealed, "*/*") if _CONTENT.fullmatch(p.name)),
        why=_why_sealed,
        locked=lambda home, path: exclusive(sealing_lock(path), what=f"the sealed directory {path.name}"),
        remove=_drop,
    ),
    "leftovers": Rule(
        candidates=_unfinished,
        why=_why_leftover,
        locked=lambda home, path: contextlib.nullcontext(),
        remove=_drop_unfinished,
    ),
}
"""The rules common to all families."""
