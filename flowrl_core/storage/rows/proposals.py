"""Proposals: what was proposed to a campaign in each round, and the skills that it means because of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError
from flowrl_core.proposals.model import Finding, Proposal
from flowrl_core.skills.model import Skill
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.storage import schema
from flowrl_core.storage.records import Campaign, Examined, ProposalRecord, SkillFact
from flowrl_core.storage.rows import campaigns, facts

__all__ = ["of_campaign", "record_round", "with_accepted"]

_rows = schema.proposals.c


def record_round(
    tx: sa.Connection, campaign: Campaign, examined: Sequence[Examined], *, model: str, call: str
) -> list[ProposalRecord]:
    """See `Registry.record_round`."""
    before = of_campaign(tx, campaign.name)
    if call and (same := [record for record in before if record.call == call]):
        return same
    number = 1 + max((record.round for record in before), default=0)
    known, taken = facts.of_campaign(tx, campaign), set[str]()
    common = {"campaign": campaign.name, "round": number, "model": model, "call": call, "created_at": time.time()}
    for one in examined:
        values = _values(one)
        if one.examination is not None and one.is_accepted:
            skill = one.examination.repaired.skill
            values["revises"] = _replaced(skill.name, known, taken)
            values["identity"] = _accept(tx, campaign, skill)
            taken.add(skill.name)
        tx.execute(sa.insert(schema.proposals).values(**common, **values))
    return [record for record in of_campaign(tx, campaign.name) if record.round == number]


def of_campaign(tx: sa.Connection, campaign: str) -> list[ProposalRecord]:
    """See `Registry.proposals`."""
    rows = tx.execute(sa.select(schema.proposals).where(_rows.campaign == campaign).order_by(_rows.id)).mappings()
    return [_record(row) for row in rows]


def with_accepted(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill]) -> dict[str, Skill]:
    """The skills of a knowledge base with the newest accepted proposal of each name.

    Where both have a name, the knowledge base counts, unless the proposal took the place of just that definition, or
    of one that did.
    """
    records = [record for record in of_campaign(tx, spec.campaign) if record.state == "accepted"]
    found = dict(skills)
    base = {name: {skill.identity(spec.env)} for name, skill in skills.items()}
    for record in records:
        known = base.setdefault(record.name, set())
        if record.repaired is not None and (record.name not in skills or record.revises in known):
            found[record.name] = record.repaired.skill
            known.add(str(record.identity))
    return found


def _replaced(name: str, known: Mapping[str, SkillFact], taken: Collection[str]) -> str | None:
    """The identity of the failed definition that a new one of this name takes the place of; None if there is none."""
    fact = known.get(name)
    if name in taken or (fact is not None and not fact.failed):
        raise ConflictError(f"{name} is a skill of the campaign already, and did not fail; look at the proposals again")
    return fact.identity if fact is not None else None


def _accept(tx: sa.Connection, campaign: Campaign, skill: Skill) -> str:
    identity = campaigns.define(tx, campaign.env, {skill.name: skill})[skill.name]
    campaigns.assign(tx, campaign.name, skill.name, identity)
    # The definition may be one that failed before, perhaps two proposals ago.
    campaigns.forgive(tx, campaign.name, [skill.name])
    return identity


def _values(one: Examined) -> dict[str, Any]:
    examination = one.examination
    values: dict[str, Any] = {"name": "", "frames": one.frames, "state": "accepted" if one.is_accepted else "refused"}
    values |= {"refusals": [finding.as_dict() for finding in one.all_refusals], "repairs": []}
    if examination is not None:
        values |= {"name": _storable(examination.repaired.skill.name)}
        values |= {"proposal": examination.proposal.as_dict(), "repaired": examination.repaired.as_dict()}
        values |= {"repairs": [finding.as_dict() for finding in examination.repairs]}
    return values


def _storable(name: str) -> str:
    """The name of somebody else's making as a text that every database takes; JSON escapes such things itself."""
    return name.encode("utf-8", "replace").decode().replace("\0", "?")


def _record(row: Mapping[Any, Any]) -> ProposalRecord:
    proposals = {part: Proposal.from_dict(row[part]) if row[part] else None for part in ("proposal", "repaired")}
    findings = {part: tuple(Finding(**data) for data in row[part]) for part in ("refusals", "repairs")}
    return ProposalRecord(**{**row, **proposals, **findings})
