"""Rows of attempts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records.runs import Attempt, RunRecord

__all__ = ["add_attempt", "attempt_by_id", "line_of", "outstanding_attempts"]

_attempts, _interruptions = schema.attempts.c, schema.interruptions.c


def add_attempt(tx: sa.Connection, run: RunRecord) -> Attempt:
    """Return a new attempt of an open run, in the line of its campaign."""
    of_name = (_attempts.campaign == run.campaign, _attempts.name == run.name)
    is_alike = of_name if run.campaign else (_attempts.run == run.id,)
    number = (tx.execute(sa.select(sa.func.max(_attempts.number)).where(*is_alike)).scalar() or 0) + 1
    uuid = tx.execute(sa.select(schema.meta.c.uuid)).scalar_one()
    # No campaign name is empty, so keys of runs without a campaign are distinct from all others.
    place = f"{run.campaign}/{run.name}" if run.campaign else f"/{run.family}/{run.name}-{run.ordinal}"
    values: dict[str, Any] = {"campaign": run.campaign or None, "subject": run.subject, "line": line_of(tx, run)}
    values |= {"name": run.name, "number": number, "key": f"{uuid}/{place}/{number}", "created_at": time.time()}
    created = sa.insert(schema.attempts).values(run=run.id, **values).returning(_attempts.id)
    return attempt_by_id(tx, tx.execute(created).scalar_one())


def line_of(tx: sa.Connection, run: RunRecord) -> str:
    """Return the line of the run's campaign; the shared one for a run without a campaign."""
    campaigns = schema.campaigns.c
    return tx.execute(sa.select(campaigns.line).where(campaigns.name == run.campaign)).scalar() or ""


def attempt_by_id(tx: sa.Connection, attempt_id: int) -> Attempt:
    """Return the attempt as it is now.

    Raises:
        StorageError: there is none of this id.
    """
    found = _select(tx, _attempts.id == attempt_id)
    if not found:
        raise StorageError(f"the registry has no attempt {attempt_id}")
    return found[0]


def outstanding_attempts(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Attempt]:
    """Return the attempts that have not ended, oldest first: all, or those for which the conditions hold."""
    return _select(tx, _attempts.ended.is_(None), *where)


def _select(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Attempt]:
    count = sa.select(sa.func.count()).where(_interruptions.attempt == _attempts.id).scalar_subquery()
    query = sa.select(schema.attempts, count.label("interruptions")).where(*where).order_by(_attempts.id)
    return [_attempt(row) for row in tx.execute(query).mappings()]


def _attempt(row: Mapping[Any, Any]) -> Attempt:
    copied = ("id", "run", "subject", "line", "name", "number", "key", "flow_run_id", "interruptions", "reason")
    times = {"created_at": row["created_at"], "ended_at": row["ended_at"]}
    campaign = row["campaign"] or ""
    return Attempt(**{name: row[name] for name in copied}, campaign=campaign, end=row["ended"], **times)
