"""Rows of versions, heads and bundles."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records.library import BundleFacts, VersionRecord

__all__ = ["add_bundle", "add_version", "earlier_head", "heads_of", "move_head", "version_by_id", "version_record"]

_versions, _heads = schema.versions.c, schema.heads.c
_OTHER = schema.experts.alias()


def heads_of(tx: sa.Connection, global_indices: Collection[int]) -> dict[int, VersionRecord]:
    """Return the heads of these experts; those without one are left out."""
    query = sa.select(schema.versions).join(schema.heads, _heads.version == _versions.id)
    query = query.where(_heads.expert.in_(global_indices)).order_by(_heads.expert)
    return {row["expert"]: version_record(row) for row in tx.execute(query).mappings()}


def earlier_head(tx: sa.Connection, global_index: int) -> VersionRecord | None:
    """Return the newest head among earlier definitions of an expert's skill; None if there is none.

    Such definitions have the same name, environment and line, and experts of the same sizes.
    """
    query = _definitions(global_index).join(schema.heads, _heads.expert == _OTHER.c.global_index)
    query = query.join(schema.versions, _versions.id == _heads.version).with_only_columns(*schema.versions.c)
    row = tx.execute(query.order_by(_versions.id.desc()).limit(1)).mappings().first()
    return version_record(row) if row is not None else None


def _definitions(global_index: int) -> sa.Select[Any]:
    """The other experts of the same skill, line and sizes."""
    own, skill, other_skill = schema.experts.alias(), schema.skills.alias(), schema.skills.alias()
    sizes = ("line", "observation_size", "num_actions", "width")
    query = sa.select(_OTHER.c.global_index).select_from(own)
    query = query.join(skill, skill.c.identity == own.c.identity)
    query = query.join(other_skill, sa.and_(*(other_skill.c[name] == skill.c[name] for name in ("name", "env"))))
    query = query.join(_OTHER, _OTHER.c.identity == other_skill.c.identity)
    query = query.where(*(_OTHER.c[name] == own.c[name] for name in sizes))
    return query.where(own.c.global_index == global_index, _OTHER.c.global_index != global_index)


def move_head(tx: sa.Connection, expert: int, from_version: int | None, to_version: int) -> bool:
    """Move a head if it still is `from_version` (compare and set), and return whether it moved."""
    if from_version is None:
        tx.execute(sa.insert(schema.heads).values(expert=expert, version=to_version))
        return True
    compared = sa.update(schema.heads).where(_heads.expert == expert, _heads.version == from_version)
    return tx.execute(compared.values(version=to_version)).rowcount == 1


def version_by_id(tx: sa.Connection, version_id: int) -> VersionRecord:
    """Return the version of this id.

    Raises:
        StorageError: there is none.
    """
    row = tx.execute(sa.select(schema.versions).where(_versions.id == version_id)).mappings().first()
    if row is None:
        raise StorageError(f"the registry has no version {version_id}")
    return version_record(row)


def add_version(
    tx: sa.Connection, run: int, expert: int, content: str, *, routed_frames: int, parent: int | None
) -> VersionRecord:
    """Return the expert's version with this content; a new one, which includes its parent's frames, if it has none."""
    has = sa.select(schema.versions).where(_versions.expert == expert, _versions.content == content)
    row = tx.execute(has).mappings().first()
    if row is not None:
        return version_record(row)
    before = version_by_id(tx, parent) if parent is not None else None
    if before is not None and not _may_come_from(tx, expert, before.expert):
        raise StorageError(f"version {parent} belongs to expert {before.expert}, not {expert}")
    values = {"kind": "skill", "expert": expert, "content": content, "parent": parent, "run": run}
    frames = (before.frames if before else 0) + routed_frames
    created = sa.insert(schema.versions).values(frames=frames, created_at=time.time(), **values).returning(_versions.id)
    return version_by_id(tx, tx.execute(created).scalar_one())


def _may_come_from(tx: sa.Connection, expert: int, parent: int) -> bool:
    """Whether versions of `expert` may descend from those of `parent`: the same expert or an earlier definition's."""
    return parent in (expert, *tx.execute(_definitions(expert)).scalars())


def add_bundle(
    tx: sa.Connection,
    run: int,
    identity: str,
    line: str,
    plan: Mapping[str, Any],
    versions: Mapping[int, int],
    facts: BundleFacts,
) -> None:
    """Record the bundle of a learned run; `versions`: global index to version."""
    values = {"run": run, "identity": identity, "line": line, "plan": plan, "created_at": time.time(), **asdict(facts)}
    created = sa.insert(schema.bundles).values(**values)
    bundle = tx.execute(created.returning(schema.bundles.c.id)).scalar_one()
    members = [{"bundle": bundle, "expert": expert, "version": version} for expert, version in versions.items()]
    tx.execute(sa.insert(schema.bundle_versions), members)


def version_record(row: Mapping[Any, Any]) -> VersionRecord:
    """Return the version of a row."""
    copied = ("id", "kind", "expert", "content", "frames", "parent", "run", "created_at")
    return VersionRecord(**{name: row[name] for name in copied})
