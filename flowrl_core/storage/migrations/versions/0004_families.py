"""Runs of several families, environments by campaign, and lines: campaigns with a library of their own.

A run keeps what every family needs; what only a skill's run has moves to a table of its own. What a run or an attempt
works on is its subject: a skill's identity. A start may say that a skill begins anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0004"
down_revision = "0003"

_MOVED = ("identity", "plan", "plan_hash", "remap", "seeds", "run_frames", "reflection")
"""Columns of runs that only skills have."""


def upgrade() -> None:
    """Move what belongs to skills, rename what belongs to all, and add lines."""
    _split_runs()
    _generalise_attempts()
    with op.batch_alter_table("meta") as table:
        table.drop_column("env")
    op.add_column("campaigns", _text("family", 16, "skill"))
    op.add_column("campaigns", _text("line", 64, ""))
    op.add_column("bundles", _text("line", 64, ""))
    op.add_column("campaign_skills", sa.Column("from_scratch", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("experts") as table:
        table.add_column(_text("line", 64, ""))
        table.drop_constraint("uq_experts_identity", type_="unique")
        table.create_unique_constraint("uq_experts_identity_line", ["identity", "line"])


def _split_runs() -> None:
    op.create_table(
        "skill_runs",
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=True),
        sa.Column("plan_hash", sa.String(length=64), nullable=True),
        sa.Column("remap", sa.JSON(), nullable=True),
        sa.Column("seeds", sa.JSON(), nullable=True),
        sa.Column("run_frames", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reflection", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_skill_runs_identity"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_skill_runs_run"),
        sa.PrimaryKeyConstraint("run", name="pk_skill_runs"),
    )
    op.create_index("ix_skill_runs_identity", "skill_runs", ["identity"])
    moved = ", ".join(_MOVED)
    op.execute(f"INSERT INTO skill_runs (run, {moved}) SELECT id, {moved} FROM runs")
    op.add_column("runs", sa.Column("subject", sa.Text(), nullable=True))
    op.execute("UPDATE runs SET subject = identity")
    op.drop_index("ix_runs_open", "runs")
    with op.batch_alter_table("runs") as table:
        table.drop_constraint("ck_runs_verdict", type_="check")
        table.drop_constraint("fk_runs_identity", type_="foreignkey")
        table.drop_constraint("uq_runs_skill_ordinal", type_="unique")
        for column in _MOVED:
            table.drop_column(column)
        table.alter_column("kind", new_column_name="family")
        table.alter_column("skill", new_column_name="name")
        table.alter_column("campaign", existing_type=sa.String(length=64), nullable=True)
        table.add_column(sa.Column("inputs", sa.String(length=64), nullable=True))
        table.add_column(sa.Column("result", sa.JSON(), nullable=True))
    # Not above: on SQLite a table that is made anew has no constraint of columns that get their names in that moment.
    with op.batch_alter_table("runs") as table:
        table.create_unique_constraint("uq_runs_name_ordinal", ["name", "ordinal"])
    _unique("ix_runs_open", "runs", ["campaign", "subject"], "verdict IS NULL")


def _generalise_attempts() -> None:
    op.drop_index("ix_attempts_outstanding", "attempts")
    with op.batch_alter_table("attempts") as table:
        table.drop_constraint("fk_attempts_identity", type_="foreignkey")
        table.drop_constraint("uq_attempts_campaign_skill_number", type_="unique")
        old = sa.String(length=64)
        table.alter_column("identity", new_column_name="subject", existing_type=old, type_=sa.Text(), nullable=True)
        table.alter_column("skill", new_column_name="name")
        table.alter_column("campaign", existing_type=old, nullable=True)
        table.add_column(_text("line", 64, ""))
    with op.batch_alter_table("attempts") as table:
        table.create_unique_constraint("uq_attempts_campaign_name_number", ["campaign", "name", "number"])
    _unique("ix_attempts_outstanding", "attempts", ["run"], "ended IS NULL")
    _unique("ix_attempts_subject", "attempts", ["subject", "line"], "ended IS NULL")


def _text(name: str, length: int, default: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), server_default=sa.text(f"'{default}'"), nullable=False)


def _unique(name: str, table: str, columns: list[str], where: str) -> None:
    """Let these columns be unique among the rows of which the condition is true."""
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=True, sqlite_where=condition, postgresql_where=condition)
