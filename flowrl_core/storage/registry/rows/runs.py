"""Rows of runs of all families, and the check of who may write to them.

A machine that was presumed dead may come back. So each process that begins to work on a run claims it, which raises
the run's epoch; writes by a process with an earlier epoch are refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records.runs import RunRecord
from flowrl_core.text import folded

__all__ = ["check_claim", "open_run", "run_by_id", "run_record"]

_runs = schema.runs.c


def run_by_id(tx: sa.Connection, run_id: int) -> RunRecord:
    """Return the run of this id.

    Raises:
        StorageError: there is none.
    """
    row = tx.execute(sa.select(schema.runs).where(_runs.id == run_id)).mappings().first()
    if row is None:
        raise StorageError(f"the registry has no run {run_id}")
    return run_record(row)


def open_run(tx: sa.Connection, family: str, name: str, *, campaign: str, subject: str | None) -> RunRecord:
    """Return the campaign's open run of this subject; a new run if there is none or `subject` is None.

    Args:
        campaign: "": none.
    """
    if subject is not None:
        is_it = (_runs.family == family, _runs.campaign == (campaign or None), _runs.subject == subject)
        row = tx.execute(sa.select(schema.runs).where(*is_it, _runs.verdict.is_(None))).mappings().first()
        if row is not None:
            return run_record(row)
    # Part of the directory's name, with the campaign or else the family; distinct on every file system.
    last = tx.execute(sa.select(_runs.name, sa.func.max(_runs.ordinal)).group_by(_runs.name)).tuples()
    ordinal = 1 + max((number for other, number in last if folded(other) == folded(name)), default=0)
    values = {"family": family, "campaign": campaign or None, "name": name, "ordinal": ordinal, "subject": subject}
    created = sa.insert(schema.runs).values(created_at=time.time(), **values).returning(_runs.id)
    return run_by_id(tx, tx.execute(created).scalar_one())


def check_claim(run: RunRecord, epoch: int | None) -> RunRecord:
    """Return the run if it was not claimed after `epoch`; None is for callers without a claim.

    Raises:
        ConflictError: it was claimed after `epoch`.
    """
    if epoch is not None and epoch != run.epoch:
        raise ConflictError(
            f"run {run.id} ({run.name}) was taken over by another process (claim {run.epoch}, this one has {epoch}); "
            "nothing was written, and this process has nothing left to do"
        )
    return run


def run_record(row: Mapping[Any, Any]) -> RunRecord:
    """Return the run of a row."""
    return RunRecord(**{**row, "campaign": row["campaign"] or ""})
