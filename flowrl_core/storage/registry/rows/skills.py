"""Rows of skills: definitions, and the identity that each campaign assigns to a name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import InputError
from flowrl_core.nearest import remedy_for
from flowrl_core.skills.model import Skill
from flowrl_core.storage import schema
from flowrl_core.storage.records.skills import SkillRecord

__all__ = ["assign", "check_known", "define", "forgive", "skill_record", "skills_of"]


def skills_of(tx: sa.Connection, campaign: str) -> dict[str, SkillRecord]:
    """Return all skills of a campaign by name."""
    assigned, known = schema.campaign_skills.c, schema.skills.c
    query = sa.select(schema.skills).join(schema.campaign_skills, assigned.identity == known.identity)
    rows = tx.execute(query.where(assigned.campaign == campaign).order_by(assigned.name)).mappings()
    return {row["name"]: skill_record(row) for row in rows}


def check_known(field: str, name: str, known: Mapping[str, Any]) -> None:
    """Refuse a name that is not among the known skills.

    Raises:
        InputError: the name is unknown; the message names the field and suggests similar names.
    """
    if name not in known:
        raise InputError(field, f"there is no skill {name!r}", remedy_for(name, known))


def define(tx: sa.Connection, env: str, skills: Mapping[str, Skill]) -> dict[str, str]:
    """Return the identity of each of the skills, by name; missing definitions are added to the registry."""
    identities = {name: skill.identity(env) for name, skill in skills.items()}
    known = set(tx.execute(sa.select(schema.skills.c.identity)).scalars())
    fresh = {identities[name]: skill for name, skill in skills.items() if identities[name] not in known}
    now = time.time()
    for identity, definition in fresh.items():
        values = {"identity": identity, "name": definition.name, "env": env, "created_at": now}
        tx.execute(sa.insert(schema.skills).values(definition=definition.as_dict(), **values))
    return identities


def assign(tx: sa.Connection, campaign: str, name: str, identity: str | None) -> None:
    """Assign the identity to the name in a campaign, with no failure lifted; None removes the name."""
    assigned = schema.campaign_skills
    tx.execute(sa.delete(assigned).where(assigned.c.campaign == campaign, assigned.c.name == name))
    if identity is not None:
        tx.execute(sa.insert(assigned).values(campaign=campaign, name=name, identity=identity))


def forgive(tx: sa.Connection, campaign: str, names: Iterable[str], *, from_scratch: bool = False) -> None:
    """Stop counting the failures and rejections that the campaign's skills of these names have had so far.

    Args:
        from_scratch: the next run of each starts anew; else it continues the last failed one.
    """
    assigned, runs, tried = schema.campaign_skills, schema.trainings.c, schema.attempts.c
    for name in names:
        is_skill = sa.and_(assigned.c.campaign == campaign, assigned.c.name == name)
        last = (
            sa.select(sa.func.max(runs.id))
            .where(runs.campaign == campaign, runs.identity == assigned.c.identity, runs.verdict == "failed")
            .scalar_subquery()
        )
        rejected = (
            sa.select(sa.func.max(tried.id))
            .where(tried.campaign == campaign, tried.subject == assigned.c.identity, tried.ended == "rejected")
            .scalar_subquery()
        )
        forgiven = {"forgiven_run": last, "forgiven_attempt": rejected, "from_scratch": from_scratch}
        tx.execute(sa.update(assigned).where(is_skill).values(**forgiven))


def skill_record(row: Mapping[Any, Any]) -> SkillRecord:
    """Return the skill of a row."""
    return SkillRecord(row["identity"], row["name"], row["env"], Skill.from_dict(row["definition"]))
