"""Skills: their definitions, and what a campaign knows of each."""

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
    """The skills of a registry. Campaigns and accepted proposals bring them; nothing is written here."""

    engine: sa.Engine

    def get(self, campaign: str, name: str) -> SkillRecord:
        """Return what a campaign means by a skill's name now.

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
        """Return the skill of this identity, whatever campaigns mean by its name now.

        Raises:
            StorageError: the registry has none.
        """
        with reading(self.engine) as tx:
            row = tx.execute(sa.select(schema.skills).where(schema.skills.c.identity == identity)).mappings().first()
            if row is None:
                raise StorageError(f"the registry has no skill of identity {identity}")
            return skill_record(row)

    def redefined(self, campaign: str) -> list[str]:
        """Return the names of a campaign's skills of which the registry knows another definition, too.

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
        """Return what is known of every skill of a campaign, by name, in one consistent view.

        Raises:
            InputError: there is no such campaign.
        """
        with reading(self.engine) as tx:
            return facts_of(tx, campaign_by_name(tx, campaign))

    def figures(self, campaign: str) -> dict[str, SkillFigures]:
        """Return what a table of the campaign shows, by skill name, in one consistent view.

        Raises:
            InputError: there is no such campaign.
        """
        with reading(self.engine) as tx:
            return figures_of(tx, campaign_by_name(tx, campaign))
