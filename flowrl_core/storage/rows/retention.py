"""What must be kept, and what has ended."""

from __future__ import annotations

import sqlalchemy as sa

from flowrl_core.storage import schema
from flowrl_core.storage.records import RunRecord
from flowrl_core.storage.rows import runs

__all__ = ["ended_runs", "needed_contents"]


def needed_contents(tx: sa.Connection) -> frozenset[str]:
    """See `Registry.needed_contents`."""
    versions = schema.versions.c
    of_open_runs = tx.execute(sa.select(schema.runs.c.seeds).where(schema.runs.c.verdict.is_(None))).scalars()
    seeds = {version for found in of_open_runs for version in (found or {}).values() if version is not None}
    needed = sa.or_(
        versions.id.in_(sa.select(schema.heads.c.version)),
        versions.id.in_(sa.select(schema.bundle_versions.c.version)),
        versions.id.in_(seeds),
    )
    return frozenset(tx.execute(sa.select(versions.content).where(needed)).scalars())


def ended_runs(tx: sa.Connection) -> list[RunRecord]:
    """See `Registry.ended_runs`."""
    query = sa.select(schema.runs).where(schema.runs.c.verdict.is_not(None)).order_by(schema.runs.c.id)
    return [runs.run_record(row) for row in tx.execute(query).mappings()]
