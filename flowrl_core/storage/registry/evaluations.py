"""Evaluations of learned skills, outside any run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.library import EvaluationOf, EvaluationRecord

__all__ = ["Evaluations"]

_rows = schema.evaluations.c


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a registry. They decide nothing."""

    engine: sa.Engine

    def begin(
        self, identity: str, of: EvaluationOf, versions: Mapping[int, int], *, episodes: int, level: float
    ) -> int:
        """Return the id of a new evaluation, which determines its worlds; it counts once `record` was called.

        Args:
            versions: global index to version id.
            level: one-sided error level of its lower bound.
        """
        values: dict[str, Any] = {"identity": identity, "of": of, "episodes": episodes, "level": level}
        # JSON object keys are strings.
        values |= {"versions": {str(index): version for index, version in versions.items()}, "created_at": time.time()}
        with writing(self.engine) as tx:
            return int(tx.execute(sa.insert(schema.evaluations).values(**values).returning(_rows.id)).scalar_one())

    def record(
        self, evaluation: int, *, successes: int, lower_bound: float, steps: Sequence[float], worlds: Sequence[int]
    ) -> EvaluationRecord:
        """Record the results of an evaluation and return it; the first record stands.

        Raises:
            StorageError: there is no such evaluation.
        """
        figures = {"successes": successes, "lower_bound": lower_bound, "steps": list(steps), "worlds": list(worlds)}
        is_open = (_rows.id == evaluation, _rows.successes.is_(None))
        with writing(self.engine) as tx:
            tx.execute(sa.update(schema.evaluations).where(*is_open).values(**figures))
            found = _select(tx, _rows.id == evaluation)
            if not found:
                raise StorageError(f"the registry has no evaluation {evaluation}")
            return found[0]

    def of(self, identity: str) -> list[EvaluationRecord]:
        """Return the recorded evaluations of an identity, oldest first."""
        with reading(self.engine) as tx:
            return _select(tx, _rows.identity == identity)


def _select(tx: sa.Connection, where: sa.ColumnElement[bool]) -> list[EvaluationRecord]:
    query = sa.select(schema.evaluations).where(where, _rows.successes.is_not(None)).order_by(_rows.id)
    return [_evaluation(row) for row in tx.execute(query).mappings()]


def _evaluation(row: Mapping[Any, Any]) -> EvaluationRecord:
    lists = {name: tuple(row[name]) for name in ("steps", "worlds")}
    versions = {int(index): version for index, version in row["versions"].items()}
    return EvaluationRecord(**{**row, **lists, "versions": versions})
