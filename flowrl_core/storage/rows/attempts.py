"""Attempts: the submissions of a run, and what broke them off."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records import Attempt, AttemptEnd, Campaign, SkillFact
from flowrl_core.text import folded

__all__ = ["begin", "count_retry", "end", "get", "outstanding", "set_flow_run"]

_attempts, _runs, _interruptions = schema.attempts.c, schema.runs.c, schema.interruptions.c


def begin(tx: sa.Connection, campaign: Campaign, identity: str, *, new_run: bool) -> Attempt:
    """See `Registry.begin_attempt`."""
    from flowrl_core.storage.rows import facts  # which reads the attempts itself

    known = {fact.identity: (name, fact) for name, fact in facts.of_campaign(tx, campaign).items()}
    if identity not in known:
        raise StorageError(f"campaign {campaign.name!r} has no skill of identity {identity}; start it again")
    name, fact = known[identity]
    _check_may_begin(name, fact, new_run=new_run)
    run = _open_run(tx, campaign.name, identity, name)
    last = sa.select(sa.func.max(_attempts.number)).where(_attempts.campaign == campaign.name, _attempts.skill == name)
    number = (tx.execute(last).scalar() or 0) + 1
    uuid = tx.execute(sa.select(schema.meta.c.uuid)).scalar_one()
    key = f"{uuid}/{campaign.name}/{name}/{number}"
    values = {"campaign": campaign.name, "identity": identity, "skill": name, "number": number, "key": key}
    created = sa.insert(schema.attempts).values(run=run, created_at=time.time(), **values).returning(_attempts.id)
    return get(tx, tx.execute(created).scalar_one())


def get(tx: sa.Connection, attempt_id: int) -> Attempt:
    """See `Registry.attempt`."""
    found = _select(tx, _attempts.id == attempt_id)
    if not found:
        raise StorageError(f"the registry has no attempt {attempt_id}")
    return found[0]


def outstanding(tx: sa.Connection, campaign: str | None = None) -> list[Attempt]:
    """The attempts that have not ended, oldest first, of one campaign or of all."""
    return _select(tx, _attempts.ended.is_(None), *([_attempts.campaign == campaign] if campaign else []))


def set_flow_run(tx: sa.Connection, attempt_id: int, flow_run_id: str) -> Attempt:
    """See `Registry.set_flow_run`."""
    tx.execute(sa.update(schema.attempts).where(_attempts.id == attempt_id).values(flow_run_id=flow_run_id))
    return get(tx, attempt_id)


def count_retry(tx: sa.Connection, attempt_id: int, reason: str, execution: int | None) -> Attempt:
    """See `Registry.count_retry`."""
    attempt = get(tx, attempt_id)
    if attempt.end is None:
        _interrupt(tx, attempt, reason, execution)
    return get(tx, attempt_id)


def end(tx: sa.Connection, attempt_id: int, how: AttemptEnd, reason: str) -> Attempt:
    """See `Registry.end_attempt`."""
    attempt = get(tx, attempt_id)
    if attempt.end is not None:
        return attempt
    verdict = tx.execute(sa.select(_runs.verdict).where(_runs.id == attempt.run)).scalar_one()
    if verdict is not None:
        how = "verdict"
    elif how == "verdict":
        how, reason = "infrastructure", reason or "ended without a verdict"
    if how == "infrastructure":
        _interrupt(tx, attempt, reason, None)
    values = {"ended": how, "reason": reason, "ended_at": time.time(), "ended_in_start": _start(tx, attempt.campaign)}
    tx.execute(sa.update(schema.attempts).where(_attempts.id == attempt_id).values(**values))
    return get(tx, attempt_id)


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


def _select(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Attempt]:
    count = sa.select(sa.func.count()).where(_interruptions.attempt == _attempts.id).scalar_subquery()
    query = sa.select(schema.attempts, count.label("interruptions")).where(*where).order_by(_attempts.id)
    return [_attempt(row) for row in tx.execute(query).mappings()]


def _attempt(row: Mapping[Any, Any]) -> Attempt:
    copied = ("id", "run", "campaign", "identity", "skill", "number", "key", "flow_run_id", "interruptions", "reason")
    times = {"created_at": row["created_at"], "ended_at": row["ended_at"]}
    return Attempt(**{name: row[name] for name in copied}, end=row["ended"], **times)
