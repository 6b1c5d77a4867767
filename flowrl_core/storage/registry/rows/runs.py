"""Rows of runs and looks, and who may write to them.

A machine that was presumed dead may come back. So whoever begins to work on a run claims it, which raises the run's
epoch; writes by a process with an earlier epoch are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.skills.model import Plan
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.records.runs import Look, RunRecord

__all__ = ["claimed_run", "look_record", "run_by_id", "run_record"]


def run_by_id(tx: sa.Connection, run_id: int) -> RunRecord:
    """Return the run of this id.

    Raises:
        StorageError: there is none.
    """
    row = tx.execute(sa.select(schema.runs).where(schema.runs.c.id == run_id)).mappings().first()
    if row is None:
        raise StorageError(f"the registry has no run {run_id}")
    return run_record(row)


def claimed_run(tx: sa.Connection, run_id: int, epoch: int | None) -> RunRecord:
    """Return the run, unless it was claimed after `epoch`; None is for callers that claim nothing.

    Raises:
        ConflictError: it was.
        StorageError: there is no run of this id.
    """
    run = run_by_id(tx, run_id)
    if epoch is not None and epoch != run.epoch:
        raise ConflictError(
            f"run {run.id} ({run.skill}) was taken over by another process (claim {run.epoch}, this one has {epoch}); "
            "nothing was written, and nothing is left to do here"
        )
    return run


def look_record(row: Mapping[Any, Any]) -> Look:
    """Return the look of a row."""
    copied = ("frames", "episodes", "successes", "lower_bound", "level", "target", "number")
    ends = tuple((deaths, timeouts) for deaths, timeouts in row["ends"] or ())
    lists = {"steps": tuple(row["steps"]), "worlds": tuple(row["worlds"]), "ends": ends}
    return Look(**{**{name: row[name] for name in copied}, **lists})


def run_record(row: Mapping[Any, Any]) -> RunRecord:
    """Return the run of a row."""
    copied = ("id", "kind", "campaign", "identity", "skill", "ordinal", "epoch", "run_frames", "verdict", "reason")
    is_sealed = row["plan"] is not None
    return RunRecord(
        **{name: row[name] for name in copied},
        plan=Plan.from_dict(row["plan"]) if is_sealed else None,
        remap={int(k): v for k, v in row["remap"].items()} if is_sealed else None,
        config=SkillConfig.model_validate(row["config"]) if is_sealed else None,
        seeds={int(k): v for k, v in row["seeds"].items()} if is_sealed else None,
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        reflection=Reflection.from_dict(row["reflection"]) if row["reflection"] else None,
    )
