"""Rows of campaigns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import InputError
from flowrl_core.refusals import shown
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.skill import read_parameters
from flowrl_core.storage import schema
from flowrl_core.storage.records.campaigns import Campaign

__all__ = ["all_campaigns", "campaign_by_name", "check_free"]

_FAMILY = "skill"


def campaign_by_name(tx: sa.Connection, name: str) -> Campaign:
    """Return the campaign of this name.

    Raises:
        InputError: there is none; the message names the existing ones.
    """
    row = tx.execute(_of_skills().where(schema.campaigns.c.name == name)).mappings().first()
    if row is None:
        known = ", ".join(row["name"] for row in tx.execute(_of_skills()).mappings()) or "none"
        raise InputError("campaign", f"there is no campaign {shown(name)}", f"Campaigns of this registry: {known}")
    return _record(row)


def all_campaigns(tx: sa.Connection) -> list[Campaign]:
    """Return all campaigns, the most recently started first."""
    rows = tx.execute(_of_skills().order_by(schema.campaigns.c.start.desc())).mappings()
    return [_record(row) for row in rows]


def check_free(tx: sa.Connection, name: str) -> None:
    """Return if no campaign of another family has the name.

    Raises:
        InputError: one has.
    """
    others = sa.select(schema.campaigns.c.family).where(schema.campaigns.c.name == name)
    family = tx.execute(others.where(schema.campaigns.c.family != _FAMILY)).scalar()
    if family is not None:
        raise InputError("campaign", f"{shown(name)} is a campaign of the family {family}", "Use another name")


def _record(row: Mapping[Any, Any]) -> Campaign:
    spec = CampaignSpec.model_validate(read_parameters(row["spec"]))
    copied = ("name", "env", "line", "start", "created_at", "started_at")
    return Campaign(spec=spec, **{name: row[name] for name in copied})


def _of_skills() -> sa.Select[Any]:
    """The campaigns of this family: those of others have parameters of their own."""
    return sa.select(schema.campaigns).where(schema.campaigns.c.family == _FAMILY)
