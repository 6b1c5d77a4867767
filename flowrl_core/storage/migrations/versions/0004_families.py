"""Lines of results: campaigns with a library of their own beside the shared one; skills that begin anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, and let what was unique by identity be unique by identity and line."""
    op.add_column("campaigns", _text("family", 16, "skill"))
    op.add_column("campaigns", _text("line", 64, ""))
    op.add_column("bundles", _text("line", 64, ""))
    op.add_column("attempts", _text("line", 64, ""))
    op.add_column("campaign_skills", sa.Column("from_scratch", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("experts") as table:
        table.add_column(_text("line", 64, ""))
        table.drop_constraint("uq_experts_identity", type_="unique")
        table.create_unique_constraint("uq_experts_identity_line", ["identity", "line"])
    op.drop_index("ix_attempts_outstanding", "attempts")
    is_outstanding = sa.text("ended IS NULL")
    op.create_index(
        "ix_attempts_outstanding",
        "attempts",
        ["identity", "line"],
        unique=True,
        sqlite_where=is_outstanding,
        postgresql_where=is_outstanding,
    )


def _text(name: str, length: int, default: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), server_default=sa.text(f"'{default}'"), nullable=False)
