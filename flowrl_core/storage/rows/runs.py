"""Runs: one training of one skill each, with its looks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.skills.model import Plan
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.records import Look, RunRecord

__all__ = [
    "check_claim",
    "claim",
    "fail",
    "get",
    "look_record",
    "looks",
    "of_identity",
    "record_look",
    "record_reflection",
    "run_record",
    "seal",
]

_runs, _looks = schema.runs.c, schema.looks.c


def get(tx: sa.Connection, run_id: int) -> RunRecord:
    """See `Registry.run`."""
    row = tx.execute(sa.select(schema.runs).where(_runs.id == run_id)).mappings().first()
    if row is None:
        raise StorageError(f"the registry has no run {run_id}")
    return run_record(row)


def of_identity(tx: sa.Connection, identity: str) -> list[RunRecord]:
    """See `Registry.runs`."""
    query = sa.select(schema.runs).where(_runs.identity == identity).order_by(_runs.id)
    return [run_record(row) for row in tx.execute(query).mappings()]


def claim(tx: sa.Connection, run_id: int) -> int:
    """See `Registry.claim_run`."""
    epoch = get(tx, run_id).epoch + 1
    tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(epoch=epoch))
    return epoch


def check_claim(run: RunRecord, epoch: int | None) -> RunRecord:
    """The run, unless it was claimed after `epoch`; None: whoever asks claims nothing.

    Raises:
        ConflictError: it was.
    """
    if epoch is not None and epoch != run.epoch:
        raise ConflictError(
            f"run {run.id} ({run.skill}) was taken over by another process (claim {run.epoch}, this one has {epoch}); "
            "nothing was written, and nothing is left to do here"
        )
    return run


def seal(
    tx: sa.Connection,
    run_id: int,
    *,
    plan: Plan,
    remap: Mapping[int, int],
    config: SkillConfig,
    seeds: Mapping[int, int | None],
    epoch: int | None,
) -> RunRecord:
    """See `Registry.seal_run`."""
    run = check_claim(get(tx, run_id), epoch)
    if (run.plan, run.remap, run.config, run.seeds) == (plan, dict(remap), config, dict(seeds)):
        return run
    _check_open(run)
    if run.plan is not None:
        raise ConflictError(f"run {run_id} ({run.skill}) is sealed with another plan, remap, configuration or seeds")
    values: dict[str, Any] = {"plan": plan.as_dict(), "plan_hash": plan.hash, "config": config.model_dump(mode="json")}
    # Keys of JSON objects are text.
    values |= {"remap": {str(k): v for k, v in remap.items()}, "seeds": {str(k): v for k, v in seeds.items()}}
    tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**values))
    return get(tx, run_id)


def record_look(tx: sa.Connection, run_id: int, look: Look, epoch: int | None) -> Look:
    """See `Registry.record_look`."""
    run = check_claim(get(tx, run_id), epoch)
    before = looks(tx, run_id)
    for recorded in before:
        if recorded.frames == look.frames:
            return recorded
    _check_open(run)
    copied = ("frames", "episodes", "successes", "lower_bound", "level", "target")
    values: dict[str, Any] = {name: getattr(look, name) for name in copied}
    values |= {"steps": list(look.steps), "worlds": list(look.worlds), "created_at": time.time()}
    values["ends"] = [list(pair) for pair in look.ends]
    tx.execute(sa.insert(schema.looks).values(run=run_id, number=len(before) + 1, **values))
    return looks(tx, run_id)[-1]


def looks(tx: sa.Connection, run_id: int) -> list[Look]:
    """See `Registry.looks`."""
    rows = tx.execute(sa.select(schema.looks).where(_looks.run == run_id).order_by(_looks.number)).mappings()
    return [look_record(row) for row in rows]


def record_reflection(tx: sa.Connection, run_id: int, reflection: Reflection, epoch: int | None) -> Reflection:
    """See `Registry.record_reflection`."""
    recorded = check_claim(get(tx, run_id), epoch).reflection
    if recorded is not None:
        return recorded
    tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(reflection=reflection.as_dict()))
    return reflection


def fail(tx: sa.Connection, run_id: int, reason: str, epoch: int | None) -> RunRecord:
    """See `Registry.fail_run`."""
    if check_claim(get(tx, run_id), epoch).verdict is None:
        ended = {"verdict": "failed", "reason": reason, "ended_at": time.time()}
        tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**ended))
    return get(tx, run_id)


def look_record(row: Mapping[Any, Any]) -> Look:
    """The look of a row."""
    copied = ("frames", "episodes", "successes", "lower_bound", "level", "target", "number")
    ends = tuple((deaths, timeouts) for deaths, timeouts in row["ends"] or ())
    lists = {"steps": tuple(row["steps"]), "worlds": tuple(row["worlds"]), "ends": ends}
    return Look(**{**{name: row[name] for name in copied}, **lists})


def run_record(row: Mapping[Any, Any]) -> RunRecord:
    """The run of a row."""
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


def _check_open(run: RunRecord) -> None:
    if run.verdict is not None:
        raise ConflictError(f"run {run.id} ({run.skill}) has ended: {run.verdict}")
