"""Experts that see the environment's canonical view. Those there are see what the player sees, as they were trained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add one column."""
    op.add_column("experts", sa.Column("canonical_view", sa.Boolean(), server_default=sa.false(), nullable=False))
