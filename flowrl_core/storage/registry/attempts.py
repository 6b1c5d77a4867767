"""Attempts: the submissions of a run, and their interruptions.

Infrastructure trouble is never a run's verdict. A run stays open (without a verdict) through all of it, and each
attempt adopts it with its directory and checkpoints. Every time an attempt breaks off, one *interruption* is recorded:
by `count_retry` if the same Prefect run is executed again, else by `end(..., "infrastructure")`. It counts against the
campaign's start during which it happened; `rows.facts` decides how many make a skill fail.

A run has at most one outstanding attempt; so has a subject in each line, whichever campaign submitted it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlalchemy as sa

from flowrl_core.errors import ConflictError
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.runs import Attempt, AttemptEnd
from flowrl_core.storage.registry.rows.attempts import add_attempt, attempt_by_id, line_of, outstanding_attempts
from flowrl_core.storage.registry.rows.runs import run_by_id

__all__ = ["Attempts"]

_attempts, _runs, _interruptions = schema.attempts.c, schema.runs.c, schema.interruptions.c


@dataclass(frozen=True)
class Attempts:
    """The attempts of a registry. An id that does not exist is a StorageError."""

    engine: sa.Engine

    def begin(self, run_id: int) -> Attempt:
        """Return a new attempt of an open run of any family; the family decides when another attempt is due.

        The row is committed before anything is submitted: a process killed in between leaves an attempt without a flow
        run, which is submitted later under the same key.

        Raises:
            ConflictError: the run has a verdict, or an attempt of it or of its subject is outstanding.
            StorageError: there is no such run.
        """
        with writing(self.engine) as tx:
            run = run_by_id(tx, run_id)
            if run.verdict is not None:
                raise ConflictError(f"run {run.id} ({run.name}) has ended: {run.verdict}")
            is_its_work = _attempts.run == run_id
            if run.subject is not None:
                in_line = sa.and_(_attempts.subject == run.subject, _attempts.line == line_of(tx, run))
                is_its_work = sa.or_(is_its_work, in_line)
            for other in outstanding_attempts(tx, is_its_work):
                which = f"attempt {other.number} of run {other.run} ({other.name})"
                raise ConflictError(f"{which} is outstanding, and works on the same; wait for its end")
            return add_attempt(tx, run)

    def get(self, attempt_id: int) -> Attempt:
        """Return the attempt as it is now."""
        with reading(self.engine) as tx:
            return attempt_by_id(tx, attempt_id)

    def set_flow_run(self, attempt_id: int, flow_run_id: str) -> Attempt:
        """Record the Prefect run of an attempt, and return the attempt."""
        with writing(self.engine) as tx:
            tx.execute(sa.update(schema.attempts).where(_attempts.id == attempt_id).values(flow_run_id=flow_run_id))
            return attempt_by_id(tx, attempt_id)

    def count_retry(self, attempt_id: int, reason: str, *, execution: int | None = None) -> Attempt:
        """Count an interruption after which the same Prefect run is executed again; an ended attempt is unchanged.

        Args:
            execution: the Prefect run's `run_count` that broke off; repeated calls count it only once.
        """
        with writing(self.engine) as tx:
            attempt = attempt_by_id(tx, attempt_id)
            if attempt.end is None:
                _interrupt(tx, attempt, reason, execution)
            return attempt_by_id(tx, attempt_id)

    def end(self, attempt_id: int, end: AttemptEnd, reason: str = "") -> Attempt:
        """End an attempt and return it; the first end stands.

        If the run has a verdict, its attempt ends by `verdict`, whatever the caller saw: the registry wins. Conversely,
        an end by `verdict` of a run without one is recorded as `infrastructure`.
        """
        with writing(self.engine) as tx:
            attempt = attempt_by_id(tx, attempt_id)
            if attempt.end is None:
                _end(tx, attempt, end, reason)
            return attempt_by_id(tx, attempt_id)

    def outstanding(self, campaign: str) -> list[Attempt]:
        """Return the campaign's open attempts, oldest first; those without a flow run must be submitted again."""
        with reading(self.engine) as tx:
            return outstanding_attempts(tx, _attempts.campaign == campaign)


def _end(tx: sa.Connection, attempt: Attempt, end: AttemptEnd, reason: str) -> None:
    verdict = tx.execute(sa.select(_runs.verdict).where(_runs.id == attempt.run)).scalar_one()
    if verdict is not None:
        end = "verdict"
    elif end == "verdict":
        end, reason = "infrastructure", reason or "ended without a verdict"
    if end == "infrastructure":
        _interrupt(tx, attempt, reason, None)
    values = {"ended": end, "reason": reason, "ended_at": time.time(), "ended_in_start": _start(tx, attempt.campaign)}
    tx.execute(sa.update(schema.attempts).where(_attempts.id == attempt.id).values(**values))


def _interrupt(tx: sa.Connection, attempt: Attempt, reason: str, execution: int | None) -> None:
    last = sa.select(sa.func.max(_interruptions.number)).where(_interruptions.attempt == attempt.id)
    before = tx.execute(last).scalar() or 0
    number = before + 1 if execution is None else execution
    is_counted = sa.and_(_interruptions.attempt == attempt.id, _interruptions.number == number)
    if tx.execute(sa.select(_interruptions.number).where(is_counted)).first() is None:
        values = {"start": _start(tx, attempt.campaign), "reason": reason, "created_at": time.time()}
        tx.execute(sa.insert(schema.interruptions).values(attempt=attempt.id, number=number, **values))


def _start(tx: sa.Connection, campaign: str) -> int:
    """The number of the campaign's last start; 0 for no campaign."""
    query = sa.select(schema.campaigns.c.start).where(schema.campaigns.c.name == campaign)
    return int(tx.execute(query).scalar() or 0)
