"""Rows of attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records.runs import Attempt

__all__ = ["attempt_by_id", "outstanding_attempts"]

_attempts, _interruptions = schema.attempts.c, schema.interruptions.c


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
    copied = ("id", "run", "campaign", "identity", "skill", "number", "key", "flow_run_id", "interruptions", "reason")
    times = {"created_at": row["created_at"], "ended_at": row["ended_at"]}
    return Attempt(**{name: row[name] for name in copied}, end=row["ended"], **times)
