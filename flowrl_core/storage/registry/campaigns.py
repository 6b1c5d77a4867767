"""Campaigns: their parameters and their starts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.skills.goals import check_target
from flowrl_core.skills.model import Skill
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.continuation import changed_overrides, check_overrides, effective_spec
from flowrl_core.specs.overrides import Override
from flowrl_core.specs.skill import read_parameters
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.registry.rows.campaigns import all_campaigns, campaign_by_name, check_free
from flowrl_core.storage.registry.rows.facts import facts_of
from flowrl_core.storage.registry.rows.proposals import with_accepted
from flowrl_core.storage.registry.rows.skills import assign, check_known, define, forgive, skills_of
from flowrl_core.vocabulary.catalogue import vocabulary

__all__ = ["Campaigns"]

_runs = schema.trainings.c


@dataclass(frozen=True)
class Campaigns:
    """The campaigns of a registry."""

    engine: sa.Engine

    def record(self, spec: CampaignSpec, skills: Mapping[str, Skill], named: Naming = AS_PATHS) -> Campaign:
        """Record a campaign's parameters, and return the campaign; a new one begins with its first start.

        For an existing campaign, targets are added to those it has; the frontier and all limits except `merge` are
        replaced; the overrides of skills to retry may change; everything else stays, and must be the same where it is
        given (see `specs.continuation`). Without targets the earlier start is repeated. Accepted proposals remain
        skills of the campaign.

        Failures stay. `begin_start` lifts them, once the leftovers of the earlier start are reconciled and counted for
        that start.

        Args:
            skills: all skills of the knowledge base, by name; a changed definition gets a new identity. They win over
                proposals of the same name, except those that revised exactly these definitions.
            named: how the user writes a field, given its path (`training.frames`).

        Raises:
            InputError: parameters that differ from the campaign's (the message names the field); a changed override of
                a skill that is learned or whose run has begun; an unknown target or skill to retry; a goal that no
                skill could gain. Nothing was written.
        """
        with writing(self.engine) as tx:
            known = with_accepted(tx, spec, skills)
            _record(tx, _effective(tx, spec), known, named)
            return campaign_by_name(tx, spec.campaign)

    def begin_start(self, spec: CampaignSpec) -> Campaign:
        """Begin the start that `record` recorded, and return the updated campaign.

        Retries are counted from zero, cancellations are lifted, and the failures and rejections of the skills in
        `spec.retry` no longer count: their next runs continue the last failed ones, or start anew with
        `spec.from_scratch`.

        Raises:
            InputError: there is no such campaign.
        """
        with writing(self.engine) as tx:
            name = campaign_by_name(tx, spec.campaign).name
            values = {"start": _next_start(tx), "started_at": time.time()}
            tx.execute(sa.update(schema.campaigns).where(schema.campaigns.c.name == name).values(**values))
            forgive(tx, name, spec.retry, from_scratch=spec.from_scratch)
            return campaign_by_name(tx, name)

    def effective_spec(self, spec: CampaignSpec) -> CampaignSpec:
        """Return the effective parameters of a start with these: see `specs.continuation.effective_spec`.

        Raises:
            InputError: no targets, and there is no campaign of this name; or a field differs that must not change.
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
        """Return the campaign started most recently; None if there is none."""
        found = self.all()
        return found[0] if found else None

    def all(self) -> list[Campaign]:
        """Return all campaigns, the most recently started first."""
        with reading(self.engine) as tx:
            return all_campaigns(tx)


def _effective(tx: sa.Connection, spec: CampaignSpec) -> CampaignSpec:
    return effective_spec(spec, {campaign.name: campaign.spec for campaign in all_campaigns(tx)})


def _record(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill], named: Naming) -> None:
    check_free(tx, spec.campaign)
    for target in spec.targets:
        check_target(target, skills, vocabulary(spec.env))
    for name in spec.retry:
        check_known("retry", name, skills)
    row = tx.execute(sa.select(schema.campaigns).where(schema.campaigns.c.name == spec.campaign)).mappings().first()
    targets, changed = list(spec.targets), []
    if row is not None:
        before = CampaignSpec.model_validate(read_parameters(row["spec"]))
        check_overrides(before, spec, named)
        targets = [*before.targets, *targets]
        changed = [one for one, _ in changed_overrides(before, spec)]
    of_this_start = {"targets": list(dict.fromkeys(targets)), "retry": [], "from_scratch": False}
    stored = spec.model_copy(update=of_this_start).model_dump(mode="json")
    if row is None:
        now = time.time()
        values = {"name": spec.campaign, "env": spec.env, "line": spec.line, "start": _next_start(tx)}
        tx.execute(sa.insert(schema.campaigns).values(spec=stored, created_at=now, started_at=now, **values))
    else:
        tx.execute(sa.update(schema.campaigns).where(schema.campaigns.c.name == spec.campaign).values(spec=stored))
    _register(tx, spec, skills)
    if changed:
        _check_may_change(tx, campaign_by_name(tx, spec.campaign), changed, named)


def _next_start(tx: sa.Connection) -> int:
    return 1 + (tx.execute(sa.select(sa.func.max(schema.campaigns.c.start))).scalar() or 0)


def _check_may_change(tx: sa.Connection, campaign: Campaign, changed: Iterable[Override], named: Naming) -> None:
    """Check that each of the overrides can still affect the next run of its skill.

    Raises:
        InputError: the skill is learned, or its run has begun.
    """
    facts, identities = facts_of(tx, campaign), skills_of(tx, campaign.name)
    is_sealed = (_runs.campaign == campaign.name, _runs.verdict.is_(None), _runs.plan_hash.is_not(None))
    under_way = set(tx.execute(sa.select(_runs.identity).where(*is_sealed)).scalars())
    for one in changed:
        if facts[one.skill].learned:
            problem = f"{one.skill} is learned, so it is not trained again"
            remedy = "Leave the override out, or use another campaign name, with a library of its own"
            raise InputError(named(one.written), problem, f"{remedy} ({named.setting('fresh', True)})")
        if identities[one.skill].identity in under_way:
            problem = f"a run of {one.skill} has begun with other settings, and goes on with them to its end"
            raise InputError(named(one.written), problem, "Leave the override out until that run has failed")


def _register(tx: sa.Connection, spec: CampaignSpec, skills: Mapping[str, Skill]) -> None:
    identities = define(tx, spec.env, skills)
    mine = schema.campaign_skills.c
    before = dict(tx.execute(sa.select(mine.name, mine.identity).where(mine.campaign == spec.campaign)).tuples().all())
    for name in before.keys() | identities.keys():
        if before.get(name) != identities.get(name):
            assign(tx, spec.campaign, name, identities.get(name))
