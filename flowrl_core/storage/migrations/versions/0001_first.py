"""The first schema: campaigns, skills, runs, attempts, experts, versions, looks, merges and bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "campaigns",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("env", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_campaigns"),
        sa.UniqueConstraint("start", name="uq_campaigns_start"),
    )
    op.create_table(
        "meta",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("env", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_meta_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_meta"),
    )
    op.create_table(
        "skills",
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("env", sa.Text(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name="pk_skills"),
    )
    op.create_table(
        "experts",
        sa.Column("global_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("observation_size", sa.Integer(), nullable=False),
        sa.Column("num_actions", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_experts_identity"),
        sa.PrimaryKeyConstraint("global_index", name="pk_experts"),
        sa.UniqueConstraint("identity", name="uq_experts_identity"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("campaign", sa.String(length=64), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("skill", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=True),
        sa.Column("plan_hash", sa.String(length=64), nullable=True),
        sa.Column("remap", sa.JSON(), nullable=True),
        sa.Column("config", sa.JSON(), nullable=True),
        sa.Column("seeds", sa.JSON(), nullable=True),
        sa.Column("run_frames", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.CheckConstraint("verdict IN ('learned', 'failed')", name="ck_runs_verdict"),
        sa.ForeignKeyConstraint(["campaign"], ["campaigns.name"], name="fk_runs_campaign"),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_runs_identity"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("skill", "ordinal", name="uq_runs_skill_ordinal"),
    )
    op.create_index(
        "ix_runs_open",
        "runs",
        ["campaign", "identity"],
        unique=True,
        sqlite_where=sa.text("verdict IS NULL"),
        postgresql_where=sa.text("verdict IS NULL"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("campaign", sa.String(length=64), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("skill", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.String(length=64), nullable=True),
        sa.Column("ended", sa.String(length=16), nullable=True),
        sa.Column("ended_in_start", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.CheckConstraint("ended IN ('verdict', 'infrastructure', 'cancelled')", name="ck_attempts_ended"),
        sa.ForeignKeyConstraint(["campaign"], ["campaigns.name"], name="fk_attempts_campaign"),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_attempts_identity"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_attempts_run"),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("campaign", "skill", "number", name="uq_attempts_campaign_skill_number"),
        sa.UniqueConstraint("key", name="uq_attempts_key"),
    )
    op.create_index(
        "ix_attempts_outstanding",
        "attempts",
        ["identity"],
        unique=True,
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_index("ix_attempts_run", "attempts", ["run"], unique=False)
    op.create_table(
        "bundles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("success", sa.Float(), nullable=False),
        sa.Column("lower_bound", sa.Float(), nullable=False),
        sa.Column("episodes", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_bundles_identity"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_bundles_run"),
        sa.PrimaryKeyConstraint("id", name="pk_bundles"),
        sa.UniqueConstraint("run", name="uq_bundles_run"),
    )
    op.create_index("ix_bundles_identity", "bundles", ["identity"], unique=False)
    op.create_table(
        "campaign_skills",
        sa.Column("campaign", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("forgiven_run", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["campaign"], ["campaigns.name"], name="fk_campaign_skills_campaign"),
        sa.ForeignKeyConstraint(["forgiven_run"], ["runs.id"], name="fk_campaign_skills_forgiven_run"),
        sa.ForeignKeyConstraint(["identity"], ["skills.identity"], name="fk_campaign_skills_identity"),
        sa.PrimaryKeyConstraint("campaign", "name", name="pk_campaign_skills"),
    )
    op.create_table(
        "looks",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frames", sa.BigInteger(), nullable=False),
        sa.Column("episodes", sa.Integer(), nullable=False),
        sa.Column("successes", sa.Integer(), nullable=False),
        sa.Column("lower_bound", sa.Float(), nullable=False),
        sa.Column("level", sa.Float(), nullable=False),
        sa.Column("target", sa.Float(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("worlds", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_looks_run"),
        sa.PrimaryKeyConstraint("run", "number", name="pk_looks"),
        sa.UniqueConstraint("run", "frames", name="uq_looks_run_frames"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("expert", sa.Integer(), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("frames", sa.BigInteger(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["expert"], ["experts.global_index"], name="fk_versions_expert"),
        sa.ForeignKeyConstraint(["parent"], ["versions.id"], name="fk_versions_parent"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_versions_run"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("expert", "content", name="uq_versions_expert_content"),
    )
    op.create_table(
        "bundle_versions",
        sa.Column("bundle", sa.Integer(), nullable=False),
        sa.Column("expert", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["bundle"], ["bundles.id"], name="fk_bundle_versions_bundle"),
        sa.ForeignKeyConstraint(["expert"], ["experts.global_index"], name="fk_bundle_versions_expert"),
        sa.ForeignKeyConstraint(["version"], ["versions.id"], name="fk_bundle_versions_version"),
        sa.PrimaryKeyConstraint("bundle", "expert", name="pk_bundle_versions"),
    )
    op.create_table(
        "heads",
        sa.Column("expert", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["expert"], ["experts.global_index"], name="fk_heads_expert"),
        sa.ForeignKeyConstraint(["version"], ["versions.id"], name="fk_heads_version"),
        sa.PrimaryKeyConstraint("expert", name="pk_heads"),
    )
    op.create_table(
        "interruptions",
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["attempt"], ["attempts.id"], name="fk_interruptions_attempt"),
        sa.PrimaryKeyConstraint("attempt", "number", name="pk_interruptions"),
    )
    op.create_table(
        "merges",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("expert", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("frames", sa.BigInteger(), nullable=False),
        sa.Column("routed_frames", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("action IN ('new', 'updated', 'kept')", name="ck_merges_action"),
        sa.ForeignKeyConstraint(["expert"], ["experts.global_index"], name="fk_merges_expert"),
        sa.ForeignKeyConstraint(["from_version"], ["versions.id"], name="fk_merges_from_version"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_merges_run"),
        sa.ForeignKeyConstraint(["to_version"], ["versions.id"], name="fk_merges_to_version"),
        sa.ForeignKeyConstraint(["version"], ["versions.id"], name="fk_merges_version"),
        sa.PrimaryKeyConstraint("run", "expert", name="pk_merges"),
    )
