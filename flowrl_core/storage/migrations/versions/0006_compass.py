"""What an expert sees, as flags: a canonical view (1), as before, and a compass (2), which no earlier expert has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Replace one column."""
    op.add_column("experts", sa.Column("view", sa.Integer(), server_default=sa.text("0"), nullable=False))
    experts = sa.table("experts", sa.column("view", sa.Integer), sa.column("canonical_view", sa.Boolean))
    op.execute(sa.update(experts).where(experts.c.canonical_view).values(view=1))
    with op.batch_alter_table("experts") as table:
        table.drop_column("canonical_view")
