"""Rows of skills' runs and their looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.skills.model import Plan
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.skill import SkillConfig, read_parameters
from flowrl_core.storage import schema
from flowrl_core.storage.records.skill_runs import Look, SkillRunRecord
from flowrl_core.storage.registry.rows.runs import check_claim, run_by_id
from flowrl_core.types import FailedEnds

__all__ = ["claimed_skill_run", "look_record", "skill_run_by_id", "skill_run_record"]


def skill_run_by_id(tx: sa.Connection, run_id: int) -> SkillRunRecord:
    """Return the run of this id.

    Raises:
        StorageError: there is none.
    """
    row = tx.execute(sa.select(schema.trainings).where(schema.trainings.c.id == run_id)).mappings().first()
    if row is None:
        raise StorageError(f"the registry has no run {run_id} of a skill")
    return skill_run_record(row)


def claimed_skill_run(tx: sa.Connection, run_id: int, epoch: int | None) -> SkillRunRecord:
    """Return the run if it was not claimed after `epoch`; None is for callers without a claim.

    Raises:
        ConflictError: it was claimed after `epoch`.
        StorageError: there is no run of this id.
    """
    check_claim(run_by_id(tx, run_id), epoch)
    return skill_run_by_id(tx, run_id)


def look_record(row: Mapping[Any, Any]) -> Look:
    """Return the look of a row."""
    copied = ("frames", "episodes", "successes", "lower_bound", "level", "target", "number")
    ends = tuple(FailedEnds(*counts) for counts in row["ends"] or ())
    lists = {"steps": tuple(row["steps"]), "worlds": tuple(row["worlds"]), "ends": ends}
    return Look(**{**{name: row[name] for name in copied}, **lists})


def skill_run_record(row: Mapping[Any, Any]) -> SkillRunRecord:
    """Return the run of a row."""
    copied = ("id", "family", "campaign", "identity", "skill", "ordinal", "epoch", "run_frames", "verdict", "reason")
    is_sealed = row["plan"] is not None
    return SkillRunRecord(
        **{name: row[name] for name in copied},
        plan=Plan.from_dict(row["plan"]) if is_sealed else None,
        remap={int(k): v for k, v in row["remap"].items()} if is_sealed else None,
        config=SkillConfig.model_validate(read_parameters(row["config"])) if is_sealed else None,
        seeds={int(k): v for k, v in row["seeds"].items()} if is_sealed else None,
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        reflection=Reflection.from_dict(row["reflection"]) if row["reflection"] else None,
    )
