"""Evaluations of learned skills, outside any run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records import EvaluationOf, EvaluationRecord

__all__ = ["begin", "of_identity", "record"]

_rows = schema.evaluations.c


def begin(
    tx: sa.Connection, identity: str, of: EvaluationOf, versions: Mapping[int, int], *, episodes: int, level: float
) -> int:
    """See `Registry.begin_evaluation`."""
    values: dict[str, Any] = {"identity": identity, "of": of, "episodes": episodes, "level": level}
    # Keys of JSON objects are text.
    values |= {"versions": {str(index): version for index, version in versions.items()}, "created_at": time.time()}
    return int(tx.execute(sa.insert(schema.evaluations).values(**values).returning(_rows.id)).scalar_one())


def record(tx: sa.Connection, evaluation: int, figures: Mapping[str, Any]) -> EvaluationRecord:
    """See `Registry.record_evaluation`."""
    is_open = (_rows.id == evaluation, _rows.successes.is_(None))
    tx.execute(sa.update(schema.evaluations).where(*is_open).values(**figures))
    found = _select(tx, _rows.id == evaluation)
    if not found:
        raise StorageError(f"the registry has no evaluation {evaluation}")
    return found[0]


def of_identity(tx: sa.Connection, identity: str) -> list[EvaluationRecord]:
    """See `Registry.evaluations`."""
    return _select(tx, _rows.identity == identity)


def _select(tx: sa.Connection, where: sa.ColumnElement[bool]) -> list[EvaluationRecord]:
    query = sa.select(schema.evaluations).where(where, _rows.successes.is_not(None)).order_by(_rows.id)
    return [_evaluation(row) for row in tx.execute(query).mappings()]


def _evaluation(row: Mapping[Any, Any]) -> EvaluationRecord:
    lists = {name: tuple(row[name]) for name in ("steps", "worlds")}
    versions = {int(index): version for index, version in row["versions"].items()}
    return EvaluationRecord(**{**row, **lists, "versions": versions})
