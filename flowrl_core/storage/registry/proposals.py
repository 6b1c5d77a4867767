"""Proposals to a campaign, by round."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError
from flowrl_core.skills.model import Skill
from flowrl_core.storage import schema
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.proposals import Examined, ProposalRecord
from flowrl_core.storage.records.skills import SkillFact
from flowrl_core.storage.registry.rows.campaigns import campaign_by_name
from flowrl_core.storage.registry.rows.facts import facts_of
from flowrl_core.storage.registry.rows.proposals import proposals_of
from flowrl_core.storage.registry.rows.skills import assign, define, forgive

__all__ = ["Proposals"]


@dataclass(frozen=True)
class Proposals:
    """The proposals of a registry, accepted and refused. A campaign that does not exist is an InputError."""

    engine: sa.Engine

    def record_round(
        self, campaign: str, examined: Sequence[Examined], *, model: str, call: str = ""
    ) -> list[ProposalRecord]:
        """Record the content of one answer as the campaign's next round; accepted proposals become its skills.

        A new definition replaces a failed one of the same name. If the new definition itself failed before, that
        failure no longer counts.

        Args:
            examined: at least one.
            call: the journal's key of the answer; if a round already has it, nothing changes.

        Returns:
            The round's records, in the order of `examined`.

        Raises:
            ConflictError: a definition that did not fail has an accepted name; nothing of the round was written.
        """
        if not examined:
            raise ValueError("a round has at least one row: say what was wrong with the answer")
        with writing(self.engine) as tx:
            records = _record_round(tx, campaign_by_name(tx, campaign), examined, model=model, call=call)
            crash_point("before_round_record")
        crash_point("after_round_record")
        return records

    def of(self, campaign: str) -> list[ProposalRecord]:
        """Return all proposals to a campaign, oldest first."""
        with reading(self.engine) as tx:
            return proposals_of(tx, campaign_by_name(tx, campaign).name)


def _record_round(
    tx: sa.Connection, campaign: Campaign, examined: Sequence[Examined], *, model: str, call: str
) -> list[ProposalRecord]:
    before = proposals_of(tx, campaign.name)
    if call and (same := [record for record in before if record.call == call]):
        return same
    number = 1 + max((record.round for record in before), default=0)
    known, taken = facts_of(tx, campaign), set[str]()
    common = {"campaign": campaign.name, "round": number, "model": model, "call": call, "created_at": time.time()}
    for one in examined:
        values = _values(one)
        if one.examination is not None and one.is_accepted:
            skill = one.examination.repaired.skill
            values["revises"] = _replaced(skill.name, known, taken)
            values["identity"] = _accept(tx, campaign, skill)
            taken.add(skill.name)
        tx.execute(sa.insert(schema.proposals).values(**common, **values))
    return [record for record in proposals_of(tx, campaign.name) if record.round == number]


def _replaced(name: str, known: Mapping[str, SkillFact], taken: Collection[str]) -> str | None:
    """The identity of the failed definition that a new one of this name replaces; None if there is none."""
    fact = known.get(name)
    if name in taken or (fact is not None and not fact.failed):
        raise ConflictError(
            f"{name} is already a skill of the campaign, and has not failed; examine the proposals again"
        )
    return fact.identity if fact is not None else None


def _accept(tx: sa.Connection, campaign: Campaign, skill: Skill) -> str:
    identity = define(tx, campaign.env, {skill.name: skill})[skill.name]
    assign(tx, campaign.name, skill.name, identity)
    # The definition may be one that failed before, perhaps two proposals ago.
    forgive(tx, campaign.name, [skill.name])
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
    """A model's name for a skill, as text that every database accepts; in JSON such characters are escaped anyway."""
    return name.encode("utf-8", "replace").decode().replace("\0", "?")
