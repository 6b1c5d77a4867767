"""Campaigns and the skills they mean."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import InputError, StorageError
from flowrl_core.nearest import nearest
from flowrl_core.refusals import shown
from flowrl_core.skills.goals import check_target
from flowrl_core.skills.model import Skill
from flowrl_core.specs.campaign import CampaignSpec, continued
from flowrl_core.storage import schema
from flowrl_core.storage.records import Campaign, SkillRecord
from flowrl_core.vocabulary.catalogue import vocabulary

__all__ = [
    "all_of",
    "assign",
    "define",
    "definition",
    "forgive",
    "get",
    "effective_spec",
    "skill",
    "skills_of",
    "start",
]

_FREE_LIMITS = ("max_parallel", "max_retries", "max_skills", "approval", "stall_minutes")
"""They change how a campaign uses the machine, not what it learns."""


def start(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill], *, is_new_start: bool) -> Campaign:
    """See `Registry.start_campaign`."""
    spec = effective_spec(tx, spec)
    for target in spec.targets:
        check_target(target, skills, vocabulary(spec.env))
    for name in spec.retry:
        _check_known("retry", name, skills)
    _bind_environment(tx, spec.env)
    now = time.time()
    row = tx.execute(sa.select(schema.campaigns).where(schema.campaigns.c.name == spec.campaign)).mappings().first()
    targets = list(spec.targets)
    if row is not None:
        before = CampaignSpec.model_validate(row["spec"])
        _check_same(before, spec)
        targets = [*before.targets, *targets]
    stored = spec.model_copy(update={"targets": list(dict.fromkeys(targets)), "retry": []}).model_dump(mode="json")
    last = tx.execute(sa.select(sa.func.max(schema.campaigns.c.start))).scalar() or 0
    if row is None:
        values = {"name": spec.campaign, "env": spec.env, "created_at": now, "start": last + 1, "started_at": now}
        tx.execute(sa.insert(schema.campaigns).values(spec=stored, **values))
    else:
        values = {"start": last + 1, "started_at": now} if is_new_start else {}
        changed = sa.update(schema.campaigns).where(schema.campaigns.c.name == spec.campaign)
        tx.execute(changed.values(spec=stored, **values))
    _register(tx, spec, skills)
    if is_new_start or row is None:
        forgive(tx, spec.campaign, spec.retry)
    return get(tx, spec.campaign)


def effective_spec(tx: sa.Connection, spec: CampaignSpec) -> CampaignSpec:
    """See `Registry.effective_spec`."""
    if spec.targets:
        return spec
    before = {campaign.name: campaign.spec for campaign in all_of(tx)}
    if spec.campaign not in before:
        problem = f"none is named, and there is no campaign {spec.campaign!r} to go on with"
        known = ", ".join(before) or "none"
        raise InputError("targets", problem, f"Name the skills to learn, or a campaign that was started: {known}")
    return continued(spec, before[spec.campaign])


def get(tx: sa.Connection, name: str) -> Campaign:
    """See `Registry.campaign`."""
    row = tx.execute(sa.select(schema.campaigns).where(schema.campaigns.c.name == name)).mappings().first()
    if row is None:
        known = ", ".join(tx.execute(sa.select(schema.campaigns.c.name)).scalars()) or "none"
        raise InputError("campaign", f"there is no campaign {shown(name)}", f"Campaigns of this registry: {known}")
    return _campaign(row)


def all_of(tx: sa.Connection) -> list[Campaign]:
    """See `Registry.campaigns`."""
    rows = tx.execute(sa.select(schema.campaigns).order_by(schema.campaigns.c.start.desc())).mappings()
    return [_campaign(row) for row in rows]


def skills_of(tx: sa.Connection, campaign: str) -> dict[str, SkillRecord]:
    """See `Registry.skills`."""
    mine, known = schema.campaign_skills.c, schema.skills.c
    query = sa.select(schema.skills).join(schema.campaign_skills, mine.identity == known.identity)
    rows = tx.execute(query.where(mine.campaign == campaign).order_by(mine.name)).mappings()
    return {row["name"]: _skill(row) for row in rows}


def skill(tx: sa.Connection, campaign: str, name: str) -> SkillRecord:
    """See `Registry.skill`."""
    known = skills_of(tx, get(tx, campaign).name)
    _check_known("skill", name, known)
    return known[name]


def definition(tx: sa.Connection, identity: str) -> SkillRecord:
    """See `Registry.definition`."""
    row = tx.execute(sa.select(schema.skills).where(schema.skills.c.identity == identity)).mappings().one_or_none()
    if row is None:
        raise StorageError(f"the registry has no skill of identity {identity}")
    return _skill(row)


def define(tx: sa.Connection, env: str, skills: Mapping[str, Skill]) -> dict[str, str]:
    """The identity of each of the skills, by name; definitions that the registry does not have yet are added."""
    identities = {name: skill.identity(env) for name, skill in skills.items()}
    known = set(tx.execute(sa.select(schema.skills.c.identity)).scalars())
    fresh = {identities[name]: skill for name, skill in skills.items() if identities[name] not in known}
    now = time.time()
    for identity, definition in fresh.items():
        values = {"identity": identity, "name": definition.name, "env": env, "created_at": now}
        tx.execute(sa.insert(schema.skills).values(definition=definition.as_dict(), **values))
    return identities


def assign(tx: sa.Connection, campaign: str, name: str, identity: str | None) -> None:
    """Let a campaign mean this identity by the name, with nothing forgiven; None: it means nothing by it."""
    mine = schema.campaign_skills
    tx.execute(sa.delete(mine).where(mine.c.campaign == campaign, mine.c.name == name))
    if identity is not None:
        tx.execute(sa.insert(mine).values(campaign=campaign, name=name, identity=identity))


def forgive(tx: sa.Connection, campaign: str, names: Iterable[str]) -> None:
    """Let the failures and rejections so far of what a campaign means by these names not count any more."""
    mine, runs, tried = schema.campaign_skills, schema.runs.c, schema.attempts.c
    for name in names:
        is_skill = sa.and_(mine.c.campaign == campaign, mine.c.name == name)
        last = (
            sa.select(sa.func.max(runs.id))
            .where(runs.campaign == campaign, runs.identity == mine.c.identity, runs.verdict == "failed")
            .scalar_subquery()
        )
        rejected = (
            sa.select(sa.func.max(tried.id))
            .where(tried.campaign == campaign, tried.identity == mine.c.identity, tried.ended == "rejected")
            .scalar_subquery()
        )
        tx.execute(sa.update(mine).where(is_skill).values(forgiven_run=last, forgiven_attempt=rejected))


def _campaign(row: Mapping[Any, Any]) -> Campaign:
    spec = CampaignSpec.model_validate(row["spec"])
    return Campaign(row["name"], row["env"], spec, row["start"], row["created_at"], row["started_at"])


def _skill(row: Mapping[Any, Any]) -> SkillRecord:
    return SkillRecord(row["identity"], row["name"], row["env"], Skill.from_dict(row["definition"]))


def _check_known(field: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        near = ", ".join(nearest(name, known)) or ", ".join(sorted(known)[:5])
        raise InputError(field, f"there is no skill {name!r}", f"Did you mean: {near}")


def _bind_environment(tx: sa.Connection, env: str) -> None:
    bound = tx.execute(sa.select(schema.meta.c.env).with_for_update()).scalar_one()
    if bound is None:
        tx.execute(sa.update(schema.meta).values(env=env))
    elif bound != env:
        raise InputError("env", f"this registry holds experts of {bound!r}, not of {env!r}", "Use another FLOWRL_HOME")


def _check_same(before: CampaignSpec, after: CampaignSpec) -> None:
    old, new = _fixed(before), _fixed(after)
    for field in sorted(old.keys() | new.keys()):
        if old.get(field) != new.get(field):
            raise InputError(
                field,
                f"campaign {before.campaign!r} was started with {old.get(field)!r}, not {new.get(field)!r}",
                "Use the same value, or another campaign name",
            )


def _fixed(spec: CampaignSpec) -> dict[str, Any]:
    """All that must not change under one name, by the field's full name."""
    flat: dict[str, Any] = {"knowledge": spec.knowledge, "env": spec.env, "overrides": sorted(spec.overrides)}
    for group in ("training", "evaluation", "limits"):
        values = getattr(spec, group).model_dump()
        flat |= {f"{group}.{name}": value for name, value in values.items() if name not in _FREE_LIMITS}
    return flat


def _register(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill]) -> None:
    identities = define(tx, spec.env, skills)
    mine = schema.campaign_skills.c
    before = dict(tx.execute(sa.select(mine.name, mine.identity).where(mine.campaign == spec.campaign)).tuples().all())
    for name in before.keys() | identities.keys():
        if before.get(name) != identities.get(name):
            assign(tx, spec.campaign, name, identities.get(name))
