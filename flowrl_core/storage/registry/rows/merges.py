"""Rows of merges."""

from __future__ import annotations

import collections
from collections.abc import Collection

import sqlalchemy as sa

from flowrl_core.storage import schema
from flowrl_core.storage.records.library import Measured, Merge

__all__ = ["merges_of"]


def merges_of(tx: sa.Connection, run_ids: Collection[int]) -> dict[int, list[Merge]]:
    """Return the merges of these runs, by run and in order of the global index."""
    rows = schema.merges.c
    query = (
        sa.select(schema.merges, schema.skills.c.name)
        .join(schema.experts, rows.expert == schema.experts.c.global_index)
        .join(schema.skills, schema.experts.c.identity == schema.skills.c.identity)
        .where(rows.run.in_(run_ids))
        .order_by(rows.run, rows.expert)
    )
    found: dict[int, list[Merge]] = collections.defaultdict(list)
    for row in tx.execute(query).mappings():
        measured = Measured(**row["measured"]) if row["measured"] else None
        found[row["run"]].append(Merge(**{**row, "measured": measured}))
    return found
