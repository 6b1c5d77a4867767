"""Rejected attempts, claims of runs, measured merges, and evaluations of learned skills."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"

_ENDED = "ended IN ('verdict', 'infrastructure', 'cancelled', 'rejected')"


def upgrade() -> None:
    """Change the tables and add one."""
    with op.batch_alter_table("attempts") as table:
        table.drop_constraint("ck_attempts_ended", type_="check")
        table.create_check_constraint("ck_attempts_ended", _ENDED)
    op.add_column("runs", sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("merges", sa.Column("measured", sa.JSON(), nullable=True))
    with op.batch_alter_table("campaign_skills") as table:
        table.add_column(sa.Column("forgiven_attempt", sa.Integer(), nullable=True))
        table.create_foreign_key("fk_campaign_skills_forgiven_attempt", "attempts", ["forgiven_attempt"], ["id"])
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("of", sa.String(length=16), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("episodes", sa.Integer(), nullable=False),
        sa.Column("successes", sa.Integer(), nullable=True),
        sa.Column("lower_bound", sa.Float(), nullable=True),
        sa.Column("level", sa.Float(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=True),
        sa.Column("worlds", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("\"of\" IN ('bundle', 'heads')", name="ck_evaluations_of"),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_evaluations_identity"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_identity", "evaluations", ["identity"], unique=False)
