"""Skills: their definitions, and the facts about each in a campaign."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading
from flowrl_core.storage.records.skills import SkillFact, SkillFigures, SkillRecord
from flowrl_core.storage.registry.rows.campaigns import campaign_by_name
from flowrl_core.storage.registry.rows.facts import facts_of
from flowrl_core.storage.registry.rows.figures import figures_of
from flowrl_core.storage.registry.rows.skills import check_known, skill_record, skills_of

__all__ = ["Skills"]


@dataclass(frozen=True)
class Skills:
    """The skills of a registry, read-only: campaigns and accepted proposals add them."""

    engine: sa.Engine

    def get(self, campaign: str, name: str) -> SkillRecord:
        """Return the skill that a name currently means in a campaign.

        Raises:
            InputError: there is no such campaign, or it has no such skill.
        """
        with reading(self.engine) as tx:
            known = skills_of(tx, campaign_by_name(tx, campaign).name)
            check_known("skill", name, known)
            return known[name]

    def of(self, campaign: str) -> dict[str, SkillRecord]:
        """Return all skills of a campaign by name."""
        with reading(self.engine) as tx:
            return skills_of(tx, campaign)

    def definition(self, identity: str) -> SkillRecord:
        """Return the skill of this identity, even if its name now means another definition.

        Raises:
            StorageError: the registry has none.
        """
        with reading(self.engine) as tx:
            row = tx.execute(sa.select(schema.skills).where(schema.skills.c.identity == identity)).mappings().first()
            if row is None:
                raise StorageError(f"the registry has no skill of identity {identity}")
            return skill_record(row)

    def redefined(self, campaign: str) -> list[str]:
        """Return the names of a campaign's skills that have another definition in the registry, too.

        Raises:
            InputError: there is no such campaign.
        """
        mine, own, other = schema.campaign_skills.c, schema.skills.alias(), schema.skills.alias()
        query = sa.select(mine.name).distinct().join(own, own.c.identity == mine.identity)
        query = query.join(other, sa.and_(other.c.name == own.c.name, other.c.env == own.c.env))
        query = query.where(other.c.identity != own.c.identity).order_by(mine.name)
        with reading(self.engine) as tx:
            return list(tx.execute(query.where(mine.campaign == campaign_by_name(tx, campaign).name)).scalars())

    def facts(self, campaign: str) -> dict[str, SkillFact]:
        """Return the facts about every skill of a campaign, by name, in one consistent view.

        Raises:
            InputError: there is no such campaign.
        """
        with reading(self.engine) as tx:
            return facts_of(tx, campaign_by_name(tx, campaign))

    def figures(self, campaign: str) -> dict[str, SkillFigures]:
        """Return the figures of the campaign's table, by skill name, in one consistent view.

        Raises:
            InputError: there is no such campaign.
        """
        with reading(self.engine) as tx:
            return figures_of(tx, campaign_by_name(tx, campaign))
