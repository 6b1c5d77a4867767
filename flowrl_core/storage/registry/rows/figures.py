"""The figures of a campaign's table, read in a few statements whatever the number of skills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.storage import schema
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.library import Merge
from flowrl_core.storage.records.skill_runs import Look, SkillRunRecord
from flowrl_core.storage.records.skills import SkillFact, SkillFigures
from flowrl_core.storage.registry.rows.facts import facts_of
from flowrl_core.storage.registry.rows.merges import merges_of
from flowrl_core.storage.registry.rows.skill_runs import look_record, skill_run_record

__all__ = ["figures_of"]

_runs, _looks, _bundles, _experts = schema.trainings.c, schema.looks.c, schema.bundles.c, schema.experts.c


def figures_of(tx: sa.Connection, campaign: Campaign) -> dict[str, SkillFigures]:
    """Return the figures of the campaign's table, by skill name."""
    known = facts_of(tx, campaign)
    bundles = {row["identity"]: row for row in tx.execute(_newest_bundles(campaign.line)).mappings()}
    last = sa.select(sa.func.max(_runs.id)).where(_runs.campaign == campaign.name).group_by(_runs.identity)
    chosen = sa.select(schema.trainings).where(
        sa.or_(_runs.id.in_(last), _runs.id.in_([b["run"] for b in bundles.values()]))
    )
    records = {row["id"]: skill_run_record(row) for row in tx.execute(chosen).mappings()}
    last_of = {record.identity: record for record in records.values() if record.campaign == campaign.name}
    looks, merges = _looks_of(tx, list(records)), merges_of(tx, list(records))
    experts = sa.select(_experts.identity, _experts.global_index).where(_experts.line == campaign.line)
    indices = dict(tx.execute(experts).tuples().all())

    def figures(name: str, fact: SkillFact) -> SkillFigures:
        bundle = bundles.get(fact.identity)
        record = records[bundle["run"]] if bundle is not None else last_of.get(fact.identity)
        plain = SkillFigures(name, fact.identity, fact, expert=indices.get(fact.identity))
        if record is None:
            return plain
        return _of_run(plain, record, bundle, looks.get(record.id, []), merges.get(record.id, []))

    return {name: figures(name, fact) for name, fact in known.items()}


def _of_run(
    plain: SkillFigures,
    record: SkillRunRecord,
    bundle: Mapping[Any, Any] | None,
    looks: list[Look],
    merges: list[Merge],
) -> SkillFigures:
    last = looks[-1] if looks else None
    threshold = record.config.evaluation.threshold if record.config else None
    return SkillFigures(
        plain.name,
        plain.identity,
        plain.fact,
        expert=plain.expert,
        run=record.id,
        ordinal=record.ordinal,
        run_campaign=record.campaign,
        routed_frames=sum(merge.routed_frames for merge in merges if merge.expert == plain.expert),
        run_frames=record.run_frames,
        success=last.success if last else None,
        success_lower_bound=last.lower_bound if last else None,
        episodes=last.episodes if last else 0,
        looks=len(looks),
        threshold=bundle["threshold"] if bundle is not None else threshold,
        bundle=bundle["id"] if bundle is not None else None,
        started_at=record.created_at,
        ended_at=record.ended_at,
        merges=tuple(merges),
    )


def _newest_bundles(line: str) -> sa.Select[Any]:
    newest = sa.select(sa.func.max(_bundles.id)).where(_bundles.line == line).group_by(_bundles.identity)
    return sa.select(schema.bundles).where(_bundles.id.in_(newest))


def _looks_of(tx: sa.Connection, run_ids: list[int]) -> dict[int, list[Look]]:
    found: dict[int, list[Look]] = {}
    query = sa.select(schema.looks).where(_looks.run.in_(run_ids)).order_by(_looks.run, _looks.number)
    for row in tx.execute(query).mappings():
        found.setdefault(row["run"], []).append(look_record(row))
    return found
