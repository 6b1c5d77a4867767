"""Find and remove garbage as Prefect tasks, and report it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flowrl_core.stages.upkeep.housekeeping import Garbage, find_garbage, remove_garbage
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.text import counted
from tasks.options import IDEMPOTENT
from tasks.orchestration.runs.run_log import show_logs
from tasks.orchestration.runs.termination import until_told

__all__ = ["final_state", "find", "remove"]

_MOST_ROWS = 500


@task(name="find", **IDEMPOTENT)
def find(keep_days: int, what: Sequence[str]) -> tuple[Garbage, ...]:
    """Return what nothing needs any more."""
    show_logs()
    home = Home.from_environment()
    with Registry.open(home) as registry:
        return until_told(lambda _: find_garbage(home, registry, keep_days=keep_days, what=what))


@task(name="remove", **IDEMPOTENT)
def remove(garbage: Sequence[Garbage], keep_days: int) -> tuple[Garbage, ...]:
    """Remove the garbage; return what was removed."""
    home = Home.from_environment()
    with Registry.open(home) as registry:
        return until_told(lambda _: remove_garbage(home, registry, garbage, keep_days=keep_days))


def final_state(found: Sequence[Garbage], removed: Sequence[Garbage] | None) -> State:
    """Return the run's final state, and put a table on its page. `removed`: None for a dry run."""
    home = Home.from_environment()
    listed = found if removed is None else removed
    rows = [
        {"kind": one.kind, "path": str(one.path.relative_to(home.root)), "why": one.why, "size": _size([one])}
        for one in sorted(listed, key=lambda one: -one.bytes)[:_MOST_ROWS]
    ]
    title = "What would be removed" if removed is None else "What was removed"
    create_table_artifact(rows, key="housekeeping", description=f"{title} from {home.root} on {date.today()}")
    if removed is None:
        said = f"{_total(found)} could be removed; start housekeeping with `delete` to do so"
        return Completed(name="DryRun", message=said)
    kept = len(found) - len(removed)
    return Completed(name="Removed", message=f"{_total(removed)} removed" + (f", {kept} in use again" if kept else ""))


def _total(garbage: Sequence[Garbage]) -> str:
    return f"{counted(len(garbage), 'path')} of {_size(garbage)}"


def _size(garbage: Iterable[Garbage]) -> str:
    return f"{sum(one.bytes for one in garbage) / 1e6:,.1f} MB"
