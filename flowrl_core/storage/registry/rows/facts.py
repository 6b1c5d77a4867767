"""The facts about a campaign's skills, read in a few statements whatever their number.

When a skill counts as failed, and how it is tried again:

- `verdict`: its last run in this campaign did not learn. It stays failed until a start of the campaign names it in
  `retry`, or its definition (so its identity) changes. A failure in another campaign does not count here; a skill that
  another campaign of the same library learned is learned here too.
- `rejected`: a person refused to train it in this campaign. It stays failed until a start names it in `retry`.
- `cancelled`: one of its attempts was cancelled since the campaign's last start. Starting the campaign again lifts it.
- `infrastructure`: its attempts were interrupted more than `max_retries` times since the campaign's last start.
  Starting the campaign again begins a new count.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.skills.skill_states import Cause
from flowrl_core.storage import schema
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.runs import Attempt
from flowrl_core.storage.records.skills import SkillFact
from flowrl_core.storage.registry.rows.attempts import outstanding_attempts

__all__ = ["facts_of"]

_runs, _attempts, _interruptions = schema.trainings.c, schema.attempts.c, schema.interruptions.c
_bundles = schema.bundles.c


@dataclass(frozen=True)
class _Known:
    """The rows that a campaign's facts are derived from, by identity."""

    learned: set[str]
    last_runs: Mapping[str, Mapping[Any, Any]]
    interruptions: Mapping[str, list[str]]
    cancellations: Mapping[str, str]
    rejections: Mapping[str, str]
    outstanding: Mapping[str, Attempt]
    decided: set[int]


def facts_of(tx: sa.Connection, campaign: Campaign) -> dict[str, SkillFact]:
    """Return the facts about every skill of the campaign, by name."""
    known = _read(tx, campaign)
    assigned = schema.campaign_skills.c
    query = sa.select(schema.campaign_skills).where(assigned.campaign == campaign.name).order_by(assigned.name)
    rows = tx.execute(query).mappings()
    limit = campaign.spec.limits.max_retries
    return {row["name"]: _fact(row["identity"], row["forgiven_run"], known, limit) for row in rows}


def _fact(identity: str, forgiven_run: int | None, known: _Known, max_retries: int) -> SkillFact:
    attempt = known.outstanding.get(identity)
    interruptions = known.interruptions.get(identity, [])
    last = known.last_runs.get(identity)
    cause: Cause = ""
    reason = interruptions[-1] if interruptions else ""
    if identity in known.learned:
        reason = ""
    elif last is not None and last["verdict"] == "failed" and last["id"] != forgiven_run:
        cause, reason = "verdict", last["reason"]
    elif identity in known.rejections:
        cause, reason = "rejected", known.rejections[identity]
    elif identity in known.cancellations:
        cause, reason = "cancelled", known.cancellations[identity]
    elif len(interruptions) > max_retries:
        cause = "infrastructure"
    return SkillFact(
        learned=identity in known.learned,
        failed=bool(cause),
        cause=cause,
        executing=attempt is not None and attempt.run not in known.decided,
        identity=identity,
        retries=len(interruptions),
        reason=reason,
        attempt=attempt,
    )


def _read(tx: sa.Connection, campaign: Campaign) -> _Known:
    last_ids = sa.select(sa.func.max(_runs.id)).where(_runs.campaign == campaign.name).group_by(_runs.identity)
    last_columns = (_runs.id, _runs.identity, _runs.verdict, _runs.reason)
    last_runs = tx.execute(sa.select(*last_columns).where(_runs.id.in_(last_ids))).mappings()
    outstanding = outstanding_attempts(tx, _attempts.line == campaign.line)
    decided = sa.select(_runs.id).where(_runs.verdict.is_not(None), _runs.id.in_([a.run for a in outstanding]))
    return _Known(
        learned=set(tx.execute(sa.select(_bundles.identity).where(_bundles.line == campaign.line)).scalars()),
        last_runs={row["identity"]: row for row in last_runs},
        interruptions=_interruptions_of(tx, campaign),
        cancellations=_cancellations_of(tx, campaign),
        rejections=_rejections_of(tx, campaign),
        outstanding={attempt.subject: attempt for attempt in outstanding if attempt.subject is not None},
        decided=set(tx.execute(decided).scalars()),
    )


def _interruptions_of(tx: sa.Connection, campaign: Campaign) -> dict[str, list[str]]:
    """Reasons of this start's interruptions, oldest first, by identity."""
    query = (
        sa.select(_attempts.subject, _interruptions.reason)
        .join(schema.attempts, _interruptions.attempt == _attempts.id)
        .where(_attempts.campaign == campaign.name, _interruptions.start == campaign.start)
        .order_by(_interruptions.attempt, _interruptions.number)
    )
    found: dict[str, list[str]] = collections.defaultdict(list)
    for identity, reason in tx.execute(query):
        found[identity].append(reason)
    return found


def _cancellations_of(tx: sa.Connection, campaign: Campaign) -> dict[str, str]:
    query = sa.select(_attempts.subject, _attempts.reason).where(
        _attempts.campaign == campaign.name,
        _attempts.ended == "cancelled",
        _attempts.ended_in_start == campaign.start,
    )
    return dict(tx.execute(query).tuples().all())


def _rejections_of(tx: sa.Connection, campaign: Campaign) -> dict[str, str]:
    """Reasons of the rejections that no start has lifted, by identity."""
    assigned = schema.campaign_skills.c
    is_current = sa.and_(assigned.campaign == _attempts.campaign, assigned.identity == _attempts.subject)
    query = (
        sa.select(_attempts.subject, _attempts.reason)
        .join(schema.campaign_skills, is_current)
        .where(_attempts.campaign == campaign.name, _attempts.ended == "rejected")
        .where(_attempts.id > sa.func.coalesce(assigned.forgiven_attempt, 0))
        .order_by(_attempts.id)
    )
    return dict(tx.execute(query).tuples().all())
