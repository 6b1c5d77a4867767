"""Failed runs that a skill may continue: the versions they left, and which of them a run continues."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from flowrl_core.storage import schema
from flowrl_core.storage.records.skill_runs import SkillRunRecord
from flowrl_core.storage.registry.rows.skill_runs import skill_run_by_id

__all__ = ["failed_before", "left_by_failed_runs"]

_runs, _merges, _assigned = schema.trainings.c, schema.merges.c, schema.campaign_skills.c
_bundles, _campaigns = schema.bundles.c, schema.campaigns.c
_HAS_FAILED = sa.and_(_runs.verdict == "failed", _runs.id.in_(sa.select(_merges.run)))
"""Failed with versions: a run that diverged or could not be planned left none."""


def failed_before(tx: sa.Connection, run: SkillRunRecord) -> SkillRunRecord | None:
    """Return the failed run that this one continues; None if it starts anew.

    It is the skill's last failed run in the campaign that left versions, if a start has lifted its failure without
    `from_scratch`.
    """
    is_skill = (_assigned.campaign == run.campaign, _assigned.identity == run.identity)
    query = sa.select(_assigned.forgiven_run).where(*is_skill, sa.not_(_assigned.from_scratch))
    forgiven = tx.execute(query).scalar()
    is_before = (_runs.campaign == run.campaign, _runs.identity == run.identity, _runs.id <= (forgiven or 0))
    found = tx.execute(sa.select(sa.func.max(_runs.id)).where(_HAS_FAILED, *is_before, _runs.id < run.id)).scalar()
    return skill_run_by_id(tx, found) if found is not None else None


def left_by_failed_runs() -> sa.Select[Any]:
    """Select the ids of the versions left by each skill's last failed run, until the skill is learned."""
    is_learned = sa.exists().where(_bundles.identity == _runs.identity, _bundles.line == _campaigns.line)
    is_assigned = sa.and_(_assigned.campaign == _runs.campaign, _assigned.identity == _runs.identity)
    last = (
        sa.select(sa.func.max(_runs.id))
        .join(schema.campaigns, _runs.campaign == _campaigns.name)
        .join(schema.campaign_skills, is_assigned)
        .where(_HAS_FAILED, sa.not_(is_learned))
        .group_by(_runs.campaign, _runs.identity)
    )
    return sa.select(_merges.version).where(_merges.run.in_(last))
