"""Campaigns: their parameters and their starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import InputError
from flowrl_core.skills.goals import check_target
from flowrl_core.skills.model import Skill
from flowrl_core.specs.campaign import CampaignSpec, continued
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.registry.rows.campaigns import all_campaigns, campaign_by_name
from flowrl_core.storage.registry.rows.proposals import with_accepted
from flowrl_core.storage.registry.rows.skills import assign, check_known, define, forgive
from flowrl_core.vocabulary.catalogue import vocabulary

__all__ = ["Campaigns"]

_FREE_LIMITS = ("max_parallel", "max_retries", "max_skills", "approval", "stall_minutes")
"""They change how a campaign uses the machine, not what it learns."""


@dataclass(frozen=True)
class Campaigns:
    """The campaigns of a registry."""

    engine: sa.Engine

    def start(self, spec: CampaignSpec, skills: Mapping[str, Skill], *, is_new_start: bool = True) -> Campaign:
        """Begin a campaign, or start it again.

        Targets are added to those it has; limits but `merge`, and the frontier, are replaced; all else must be the
        same. Without targets it is the earlier start again (see `effective_spec`: it says which skills that start
        needs). A new start begins a new count of retries, lifts cancellations, and forgives the failures and rejections
        that `spec.retry` names. The proposals that the campaign has accepted stay its skills.

        Args:
            skills: all skills of the knowledge base, by name; a changed definition gets a new identity. They win over
                proposals of the same name, but for those that revised just these definitions.
            is_new_start: false where the same start only goes on (the flow itself is run again): nothing is lifted.

        Raises:
            InputError: another environment than the registry's; other parameters than the campaign's (the field is
                named); a target or a skill to retry that is not among the skills; a goal that no skill could gain.
        """
        with writing(self.engine) as tx:
            known = with_accepted(tx, spec, skills)
            return _start(tx, _effective(tx, spec), known, is_new_start=is_new_start)

    def effective_spec(self, spec: CampaignSpec) -> CampaignSpec:
        """Return what a start with these parameters means: without targets, the campaign's earlier start.

        Raises:
            InputError: no targets, and there is no campaign of this name.
        """
        with reading(self.engine) as tx:
            return _effective(tx, spec)

    def get(self, name: str) -> Campaign:
        """Return the campaign of this name.

        Raises:
            InputError: there is none.
        """
        with reading(self.engine) as tx:
            return campaign_by_name(tx, name)

    def last(self) -> Campaign | None:
        """Return the campaign started last; None if there is none."""
        found = self.all()
        return found[0] if found else None

    def all(self) -> list[Campaign]:
        """Return all campaigns, the one started last first."""
        with reading(self.engine) as tx:
            return all_campaigns(tx)


def _start(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill], *, is_new_start: bool) -> Campaign:
    for target in spec.targets:
        check_target(target, skills, vocabulary(spec.env))
    for name in spec.retry:
        check_known("retry", name, skills)
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
    return campaign_by_name(tx, spec.campaign)


def _effective(tx: sa.Connection, spec: CampaignSpec) -> CampaignSpec:
    if spec.targets:
        return spec
    before = {campaign.name: campaign.spec for campaign in all_campaigns(tx)}
    if spec.campaign not in before:
        problem = f"none is named, and there is no campaign {spec.campaign!r} to go on with"
        known = ", ".join(before) or "none"
        raise InputError("targets", problem, f"Name the skills to learn, or a campaign that was started: {known}")
    return continued(spec, before[spec.campaign])


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
