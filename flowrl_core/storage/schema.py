"""The registry's current tables; `migrations/` brings an older database up to them.

Portable between SQLite and Postgres.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    select,
    text,
)

__all__ = [
    "HEAD",
    "attempts",
    "bundle_versions",
    "bundles",
    "campaign_skills",
    "campaigns",
    "evaluations",
    "experts",
    "heads",
    "interruptions",
    "looks",
    "merges",
    "meta",
    "metadata",
    "proposals",
    "requests",
    "runs",
    "skill_runs",
    "skills",
    "trainings",
    "versions",
]

HEAD = "0006"
"""The newest migration: a database at it is up to date."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Json = JSON(none_as_null=True)

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("env", Text, nullable=False),
    Column("family", String(16), nullable=False, server_default=text("'skill'")),
    # The library that it reads and writes: "" is the shared one, the campaign's name its own.
    Column("line", String(64), nullable=False, server_default=text("''")),
    Column("spec", _Json, nullable=False),
    # Counted over all campaigns: the greatest was started last, whatever the clock said.
    Column("start", Integer, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
)

skills = Table(
    "skills",
    metadata,
    Column("identity", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("env", Text, nullable=False),
    Column("definition", _Json, nullable=False),
    Column("created_at", Float, nullable=False),
)

# The columns common to runs of all families. Each family defines its verdicts.
runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("family", String(16), nullable=False),
    Column("campaign", ForeignKey("campaigns.name")),
    Column("name", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    # What it works on, such as a skill's identity; null: nothing that other runs could work on.
    Column("subject", Text),
    Column("config", _Json),
    # Hash of its prepared inputs; in a family with sealed directories, the directory's name.
    Column("inputs", String(64)),
    Column("result", _Json),
    Column("verdict", String(16)),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    # Number of processes that began to work on it; only the last of them may write.
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    # Part of the directory's name, with the campaign or else the family.
    UniqueConstraint("name", "ordinal"),
    # One open run per subject and campaign: every new attempt adopts it.
    Index(
        "ix_runs_open",
        "campaign",
        "subject",
        unique=True,
        sqlite_where=text("verdict IS NULL"),
        postgresql_where=text("verdict IS NULL"),
    ),
)

# Additional columns of a skill's run.
skill_runs = Table(
    "skill_runs",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True, autoincrement=False),
    Column("identity", ForeignKey("skills.identity"), nullable=False, index=True),
    Column("plan", _Json),
    Column("plan_hash", String(64)),
    Column("remap", _Json),
    Column("seeds", _Json),
    Column("run_frames", BigInteger, nullable=False, server_default=text("0")),
    # How its episodes went after its verdict, if that was requested.
    Column("reflection", _Json),
)

campaign_skills = Table(
    "campaign_skills",
    metadata,
    Column("campaign", ForeignKey("campaigns.name"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("identity", ForeignKey("skills.identity"), nullable=False),
    # A failed run that a later start asked to retry: it no longer counts as the skill's failure.
    Column("forgiven_run", ForeignKey("runs.id")),
    # The same for an attempt that was rejected.
    Column("forgiven_attempt", ForeignKey("attempts.id")),
    # Whether the next run starts anew instead of continuing the forgiven one.
    Column("from_scratch", Boolean, nullable=False, server_default=false()),
)

experts = Table(
    "experts",
    metadata,
    Column("global_index", Integer, primary_key=True, autoincrement=False),
    Column("identity", ForeignKey("skills.identity"), nullable=False),
    # The library that it belongs to, see `campaigns.line`.
    Column("line", String(64), nullable=False, server_default=text("''")),
    Column("kind", String(16), nullable=False),
    Column("observation_size", Integer, nullable=False),
    Column("num_actions", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    # What it sees: the flags of `types.View`.
    Column("view", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("identity", "line"),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("expert", ForeignKey("experts.global_index"), nullable=False),
    Column("content", String(64), nullable=False),
    Column("frames", BigInteger, nullable=False),
    Column("parent", ForeignKey("versions.id")),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("expert", "content"),
)

heads = Table(
    "heads",
    metadata,
    Column("expert", ForeignKey("experts.global_index"), primary_key=True),
    Column("version", ForeignKey("versions.id"), nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False, index=True),
    Column("campaign", ForeignKey("campaigns.name")),
    # The run's subject.
    Column("subject", Text),
    # The campaign's line: each line has at most one outstanding attempt per subject, whichever campaign made it.
    Column("line", String(64), nullable=False, server_default=text("''")),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("flow_run_id", String(64)),
    Column("ended", String(16)),
    Column("ended_in_start", Integer),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    UniqueConstraint("campaign", "name", "number"),
    CheckConstraint("ended IN ('verdict', 'infrastructure', 'cancelled', 'rejected')", name="ended"),
    Index(
        "ix_attempts_outstanding",
        "run",
        unique=True,
        sqlite_where=text("ended IS NULL"),
        postgresql_where=text("ended IS NULL"),
    ),
    Index(
        "ix_attempts_subject",
        "subject",
        "line",
        unique=True,
        sqlite_where=text("ended IS NULL"),
        postgresql_where=text("ended IS NULL"),
    ),
)

# Infrastructure trouble: one row per interruption of an attempt, by a retry of the same Prefect run or by the attempt's
# end. It counts only against `max_retries` of the campaign's start in which it happened.
interruptions = Table(
    "interruptions",
    metadata,
    Column("attempt", ForeignKey("attempts.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("start", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

looks = Table(
    "looks",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("frames", BigInteger, nullable=False),
    Column("episodes", Integer, nullable=False),
    Column("successes", Integer, nullable=False),
    Column("lower_bound", Float, nullable=False),
    Column("level", Float, nullable=False),
    Column("target", Float, nullable=False),
    Column("steps", _Json, nullable=False),
    Column("worlds", _Json, nullable=False),
    Column("created_at", Float, nullable=False),
    # By plan step: the counts of `FailedEnds`; looks older than its last field have two. Null in looks older than this
    # column.
    Column("ends", _Json),
    UniqueConstraint("run", "frames"),
)

merges = Table(
    "merges",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("expert", ForeignKey("experts.global_index"), primary_key=True),
    Column("action", String(16), nullable=False),
    Column("version", ForeignKey("versions.id"), nullable=False),
    Column("from_version", ForeignKey("versions.id")),
    Column("to_version", ForeignKey("versions.id")),
    Column("frames", BigInteger, nullable=False),
    Column("routed_frames", BigInteger, nullable=False),
    # Successes of the head and of the version, if the merge policy measured them.
    Column("measured", _Json),
    CheckConstraint("action IN ('new', 'updated', 'kept')", name="action"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False, unique=True),
    Column("identity", ForeignKey("skills.identity"), nullable=False, index=True),
    # The library in which it counts as learned, see `campaigns.line`.
    Column("line", String(64), nullable=False, server_default=text("''")),
    Column("plan", _Json, nullable=False),
    Column("success", Float, nullable=False),
    Column("lower_bound", Float, nullable=False),
    Column("episodes", Integer, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("created_at", Float, nullable=False),
)

bundle_versions = Table(
    "bundle_versions",
    metadata,
    Column("bundle", ForeignKey("bundles.id"), primary_key=True),
    Column("expert", ForeignKey("experts.global_index"), primary_key=True),
    Column("version", ForeignKey("versions.id"), nullable=False),
)

# Evaluations of a learned skill, outside any run. The row is written first, as its id determines the worlds.
evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("identity", ForeignKey("skills.identity"), nullable=False, index=True),
    Column("of", String(16), nullable=False),
    Column("versions", _Json, nullable=False),
    Column("episodes", Integer, nullable=False),
    Column("successes", Integer),
    Column("lower_bound", Float),
    Column("level", Float, nullable=False),
    Column("steps", _Json),
    Column("worlds", _Json),
    Column("created_at", Float, nullable=False),
    CheckConstraint("\"of\" IN ('bundle', 'heads')", name="of"),
)

# Every skill proposed to a campaign, by round; also answers without a valid proposal.
proposals = Table(
    "proposals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign", ForeignKey("campaigns.name"), nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    # The journal's key of its answer, which identifies a round that is recorded again.
    Column("call", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("proposal", _Json),
    Column("repaired", _Json),
    Column("refusals", _Json, nullable=False),
    Column("repairs", _Json, nullable=False),
    Column("identity", ForeignKey("skills.identity")),
    Column("frames", BigInteger),
    # The failed definition that had this name before.
    Column("revises", String(64)),
    Column("created_at", Float, nullable=False),
    CheckConstraint("state IN ('accepted', 'refused')", name="state"),
)

# A campaign's cost book of language models: one row per HTTP request, written before it is sent.
requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign", ForeignKey("campaigns.name"), nullable=False, index=True),
    Column("model", Text, nullable=False),
    # Empty while it is only reserved.
    Column("outcome", String(64), nullable=False, server_default=text("''")),
    # Upper bounds, until the actual numbers are reported.
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    # US dollars, likewise an upper bound first; null: the model has no known price.
    Column("cost", Float),
    Column("created_at", Float, nullable=False),
    Column("settled_at", Float),
)

trainings = (
    select(
        runs.c.name.label("skill"),
        *(column for column in runs.c if column.name != "name"),
        *(column for column in skill_runs.c if column.name != "run"),
    )
    .select_from(runs.join(skill_runs))
    .subquery("trainings")
)
"""The runs of skills with all their columns; read-only."""
