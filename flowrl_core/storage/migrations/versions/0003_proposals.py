"""Proposals, the book of requests to language models, how episodes of looks ended, and reflections of runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add two tables and two columns."""
    op.add_column("runs", sa.Column("reflection", sa.JSON(), nullable=True))
    op.add_column("looks", sa.Column("ends", sa.JSON(), nullable=True))
    op.create_table(
        "proposals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign", sa.String(length=64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("proposal", sa.JSON(), nullable=True),
        sa.Column("repaired", sa.JSON(), nullable=True),
        sa.Column("refusals", sa.JSON(), nullable=False),
        sa.Column("repairs", sa.JSON(), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=True),
        sa.Column("frames", sa.BigInteger(), nullable=True),
        sa.Column("revises", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("state IN ('accepted', 'refused')", name="ck_proposals_state"),
        sa.ForeignKeyConstraint(["campaign"], ["campaigns.name"], name="fk_proposals_campaign"),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_proposals_identity"),
        sa.PrimaryKeyConstraint("id", name="pk_proposals"),
    )
    op.create_index("ix_proposals_campaign", "proposals", ["campaign"], unique=False)
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign", sa.String(length=64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=64), server_default=sa.text("''"), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("settled_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["campaign"], ["campaigns.name"], name="fk_requests_campaign"),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
    )
    op.create_index("ix_requests_campaign", "requests", ["campaign"], unique=False)
