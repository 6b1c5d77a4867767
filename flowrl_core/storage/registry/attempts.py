"""Attempts: the submissions of a run, and what interrupted them.

Infrastructure trouble is never a skill's verdict. A run stays open (without a verdict) through all of it, and each
attempt of the skill in the campaign adopts the open run with its directory, checkpoints and looks. Every time an
attempt breaks off, one *interruption* is recorded: by `count_retry` where the same Prefect run is executed again, by
`end(..., "infrastructure")` where it is not. It counts against the campaign's start during which it happened; how many
make a skill fail is decided in `rows.facts`.

An identity has at most one outstanding attempt in a library, whichever campaign submitted it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.runs import Attempt, AttemptEnd
from flowrl_core.storage.records.skills import SkillFact
from flowrl_core.storage.registry.rows.attempts import attempt_by_id, outstanding_attempts
from flowrl_core.storage.registry.rows.campaigns import campaign_by_name
from flowrl_core.storage.registry.rows.facts import facts_of
from flowrl_core.text import folded

__all__ = ["Attempts"]

_attempts, _runs, _interruptions = schema.attempts.c, schema.runs.c, schema.interruptions.c


@dataclass(frozen=True)
class Attempts:
    """The attempts of a registry. An id that does not exist is a StorageError."""

    engine: sa.Engine

    def begin(self, campaign: str, identity: str, *, new_run: bool = False) -> Attempt:
        """Return a new attempt; a run is opened for it unless the campaign has an open one of this identity.

        The row is committed before anything is submitted: a process that is killed in between leaves an attempt without
        a flow run, which is submitted later under the same key.

        Args:
            new_run: begin a new run although the last one did not learn, or the skill was rejected (a start with
                `retry` does that already).

        Raises:
            InputError: there is no such campaign.
            ConflictError: an attempt is outstanding, the skill is learned, or it counts as failed.
            StorageError: the campaign has no skill of this identity.
        """
        with writing(self.engine) as tx:
            started = campaign_by_name(tx, campaign)
            known = {fact.identity: (name, fact) for name, fact in facts_of(tx, started).items()}
            if identity not in known:
                raise StorageError(f"campaign {campaign!r} has no skill of identity {identity}; start it again")
            name, fact = known[identity]
            _check_may_begin(name, fact, new_run=new_run)
            return _insert(tx, started, identity, name)

    def get(self, attempt_id: int) -> Attempt:
        """Return the attempt as it is now."""
        with reading(self.engine) as tx:
            return attempt_by_id(tx, attempt_id)

    def set_flow_run(self, attempt_id: int, flow_run_id: str) -> Attempt:
        """Record which Prefect run an attempt became, and return the attempt."""
        with writing(self.engine) as tx:
            tx.execute(sa.update(schema.attempts).where(_attempts.id == attempt_id).values(flow_run_id=flow_run_id))
            return attempt_by_id(tx, attempt_id)

    def count_retry(self, attempt_id: int, reason: str, *, execution: int | None = None) -> Attempt:
        """Count that an attempt broke off and that the same Prefect run is executed again; an ended one stays as it is.

        Args:
            execution: the Prefect run's `run_count` that broke off; it is counted once, however often this is called.
        """
        with writing(self.engine) as tx:
            attempt = attempt_by_id(tx, attempt_id)
            if attempt.end is None:
                _interrupt(tx, attempt, reason, execution)
            return attempt_by_id(tx, attempt_id)

    def end(self, attempt_id: int, end: AttemptEnd, reason: str = "") -> Attempt:
        """End an attempt and return it; the first end stands.

        A run with a verdict ends its attempt by `verdict`, whatever the caller saw: the registry wins. Conversely, an
        end by `verdict` of a run without one is recorded as `infrastructure`.
        """
        with writing(self.engine) as tx:
            attempt = attempt_by_id(tx, attempt_id)
            if attempt.end is None:
                _end(tx, attempt, end, reason)
            return attempt_by_id(tx, attempt_id)

    def outstanding(self, campaign: str) -> list[Attempt]:
        """Return the campaign's attempts that have not ended, oldest first; those without a flow run: submit again."""
        with reading(self.engine) as tx:
            return outstanding_attempts(tx, _attempts.campaign == campaign)


def _insert(tx: sa.Connection, campaign: Campaign, identity: str, name: str) -> Attempt:
    run = _open_run(tx, campaign.name, identity, name)
    last = sa.select(sa.func.max(_attempts.number)).where(_attempts.campaign == campaign.name, _attempts.skill == name)
    number = (tx.execute(last).scalar() or 0) + 1
    uuid = tx.execute(sa.select(schema.meta.c.uuid)).scalar_one()
    values: dict[str, Any] = {"campaign": campaign.name, "line": campaign.line, "identity": identity, "skill": name}
    values |= {"number": number, "key": f"{uuid}/{campaign.name}/{name}/{number}"}
    created = sa.insert(schema.attempts).values(run=run, created_at=time.time(), **values).returning(_attempts.id)
    return attempt_by_id(tx, tx.execute(created).scalar_one())


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


def _check_may_begin(name: str, fact: SkillFact, *, new_run: bool) -> None:
    if fact.attempt is not None:
        where = f"attempt {fact.attempt.number} of campaign {fact.attempt.campaign!r}"
        raise ConflictError(f"{name}: {where} is outstanding; wait for its end")
    if fact.learned:
        raise ConflictError(f"{name} is learned; its definition would have to change for it to be trained again")
    if fact.cause == "verdict" and not new_run:
        raise ConflictError(f"{name} did not learn; start the campaign again with it among the skills to retry")
    if fact.cause == "rejected" and not new_run:
        raise ConflictError(f"{name} was rejected; start the campaign again with it among the skills to retry")
    if fact.cause in ("infrastructure", "cancelled"):
        raise ConflictError(f"{name} is failed ({fact.cause}: {fact.reason}); start the campaign again")


def _open_run(tx: sa.Connection, campaign: str, identity: str, name: str) -> int:
    is_open = (_runs.campaign == campaign, _runs.identity == identity, _runs.verdict.is_(None))
    run = tx.execute(sa.select(_runs.id).where(*is_open)).scalar()
    if run is not None:
        return int(run)
    # With the campaign and the skill it names the directory, on every file system another one.
    last = tx.execute(sa.select(_runs.skill, sa.func.max(_runs.ordinal)).group_by(_runs.skill)).tuples()
    ordinal = 1 + max((number for skill, number in last if folded(skill) == folded(name)), default=0)
    values = {"kind": "skill", "campaign": campaign, "identity": identity, "skill": name, "ordinal": ordinal}
    created = sa.insert(schema.runs).values(created_at=time.time(), **values).returning(_runs.id)
    return int(tx.execute(created).scalar_one())


def _interrupt(tx: sa.Connection, attempt: Attempt, reason: str, execution: int | None) -> None:
    last = sa.select(sa.func.max(_interruptions.number)).where(_interruptions.attempt == attempt.id)
    before = tx.execute(last).scalar() or 0
    number = before + 1 if execution is None else execution
    is_counted = sa.and_(_interruptions.attempt == attempt.id, _interruptions.number == number)
    if tx.execute(sa.select(_interruptions.number).where(is_counted)).first() is None:
        values = {"start": _start(tx, attempt.campaign), "reason": reason, "created_at": time.time()}
        tx.execute(sa.insert(schema.interruptions).values(attempt=attempt.id, number=number, **values))


def _start(tx: sa.Connection, campaign: str) -> int:
    query = sa.select(schema.campaigns.c.start).where(schema.campaigns.c.name == campaign)
    return int(tx.execute(query).scalar_one())
