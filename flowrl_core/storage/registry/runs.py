"""Runs of all families: opened, claimed, sealed and ended. Each family's additional facts are in a part of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.runs import RunRecord
from flowrl_core.storage.registry.rows.runs import check_claim, open_run, run_by_id, run_record

__all__ = ["Runs"]

_runs = schema.runs.c


@dataclass(frozen=True)
class Runs:
    """The runs of a registry.

    A method that takes an `epoch` raises ConflictError if the run was claimed after it (see `claim`), with nothing
    written; None skips the check. An id that does not exist is a StorageError.
    """

    engine: sa.Engine

    def open(self, family: str, name: str, *, campaign: str = "", subject: str | None = None) -> RunRecord:
        """Return the campaign's open run of the same subject, or a new run.

        Args:
            campaign: "": none.
            subject: what it works on; a campaign has at most one open run per subject. None: always a new run.

        Raises:
            ConflictError: there is no such campaign.
        """
        with writing(self.engine) as tx:
            return open_run(tx, family, name, campaign=campaign, subject=subject)

    def get(self, run_id: int) -> RunRecord:
        """Return the run of this id."""
        with reading(self.engine) as tx:
            return run_by_id(tx, run_id)

    def of(self, family: str) -> list[RunRecord]:
        """Return all runs of a family, oldest first."""
        return self._select(_runs.family == family)

    def families(self) -> set[str]:
        """Return the names of the families that have runs."""
        with reading(self.engine) as tx:
            return set(tx.execute(sa.select(_runs.family).distinct()).scalars())

    def under_way(self) -> list[RunRecord]:
        """Return all runs without a verdict, oldest first."""
        return self._select(_runs.verdict.is_(None))

    def ended(self) -> list[RunRecord]:
        """Return all runs that have a verdict, oldest first."""
        return self._select(_runs.verdict.is_not(None))

    def claim(self, run_id: int) -> int:
        """Claim the run and return the new epoch; writes with earlier epochs are refused from now on.

        Only the run's owner calls this (`ownership.own_run`).
        """
        with writing(self.engine) as tx:
            epoch = run_by_id(tx, run_id).epoch + 1
            tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(epoch=epoch))
            return epoch

    def check_claim(self, run_id: int, epoch: int | None) -> None:
        """Check that the run was not claimed after `epoch`.

        Raises:
            ConflictError: it was.
        """
        check_claim(self.get(run_id), epoch)

    def seal(
        self, run_id: int, *, inputs: str, config: Mapping[str, Any] | None = None, epoch: int | None = None
    ) -> RunRecord:
        """Record the inputs a run was prepared with, and return the run; repeating the call changes nothing.

        Args:
            inputs: hash of its prepared inputs, such as the name of its sealed directory.
            config: JSON-ready.

        Raises:
            ConflictError: it was sealed with other inputs, or has a verdict.
        """
        with writing(self.engine) as tx:
            run = check_claim(run_by_id(tx, run_id), epoch)
            if run.inputs is not None and (run.inputs, run.config) != (inputs, config):
                raise ConflictError(f"run {run_id} ({run.name}) is sealed with other inputs or another configuration")
            if run.inputs is None:
                _check_open(run)
                values = {"inputs": inputs, "config": dict(config) if config is not None else None}
                tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**values))
            return run_by_id(tx, run_id)

    def end(
        self,
        run_id: int,
        verdict: str,
        *,
        result: Mapping[str, Any] | None = None,
        reason: str = "",
        epoch: int | None = None,
    ) -> RunRecord:
        """End a run, and return it; an existing verdict stands.

        Args:
            verdict: a verdict of the family, at most 16 characters.
            result: its result, JSON-ready.
            reason: why it failed, in words.
        """
        with writing(self.engine) as tx:
            run = check_claim(run_by_id(tx, run_id), epoch)
            if run.verdict is None:
                values = {"verdict": verdict, "reason": reason, "ended_at": time.time()}
                made = {"result": dict(result) if result is not None else None}
                tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**values, **made))
            return run_by_id(tx, run_id)

    def _select(self, where: sa.ColumnElement[bool]) -> list[RunRecord]:
        with reading(self.engine) as tx:
            rows = tx.execute(sa.select(schema.runs).where(where).order_by(_runs.id)).mappings()
            return [run_record(row) for row in rows]


def _check_open(run: RunRecord) -> None:
    if run.verdict is not None:
        raise ConflictError(f"run {run.id} ({run.name}) has ended: {run.verdict}")
