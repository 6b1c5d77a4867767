"""Rows of proposals, and the skills that they add to a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.proposals.model import Finding, Proposal
from flowrl_core.skills.model import Skill
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.storage import schema
from flowrl_core.storage.records.proposals import ProposalRecord

__all__ = ["proposals_of", "with_accepted"]

_rows = schema.proposals.c


def proposals_of(tx: sa.Connection, campaign: str) -> list[ProposalRecord]:
    """Return all proposals to a campaign, oldest first."""
    rows = tx.execute(sa.select(schema.proposals).where(_rows.campaign == campaign).order_by(_rows.id)).mappings()
    return [_record(row) for row in rows]


def with_accepted(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill]) -> dict[str, Skill]:
    """Return the skills of a knowledge base with the newest accepted proposal of each name.

    If both have a name, the knowledge base wins, unless the proposal replaced exactly that definition, or replaced one
    that did.
    """
    records = [record for record in proposals_of(tx, spec.campaign) if record.state == "accepted"]
    found = dict(skills)
    base = {name: {skill.identity(spec.env)} for name, skill in skills.items()}
    for record in records:
        known = base.setdefault(record.name, set())
        if record.repaired is not None and (record.name not in skills or record.revises in known):
            found[record.name] = record.repaired.skill
            known.add(str(record.identity))
    return found


def _record(row: Mapping[Any, Any]) -> ProposalRecord:
    proposals = {part: Proposal.from_dict(row[part]) if row[part] else None for part in ("proposal", "repaired")}
    findings = {part: tuple(Finding(**data) for data in row[part]) for part in ("refusals", "repairs")}
    return ProposalRecord(**{**row, **proposals, **findings})
