"""Rows of versions, heads and bundles."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.records.library import BundleFacts, VersionRecord
from flowrl_core.types import View

__all__ = [
    "add_bundle",
    "add_version",
    "beginning",
    "earlier_head",
    "heads_of",
    "move_head",
    "version_by_id",
    "version_record",
    "view_to_begin_with",
]

_versions, _heads = schema.versions.c, schema.heads.c
_OTHER = schema.experts.alias()
_SIZES = ("line", "observation_size", "num_actions", "width")
_ALIKE = (*_SIZES, "view")
"""What an expert must have in common with another to begin as it."""


def heads_of(tx: sa.Connection, global_indices: Collection[int]) -> dict[int, VersionRecord]:
    """Return the heads of these experts; those without one are left out."""
    query = sa.select(schema.versions).join(schema.heads, _heads.version == _versions.id)
    query = query.where(_heads.expert.in_(global_indices)).order_by(_heads.expert)
    return {row["expert"]: version_record(row) for row in tx.execute(query).mappings()}


def earlier_head(tx: sa.Connection, global_index: int) -> VersionRecord | None:
    """Return the newest head among earlier definitions of an expert's skill; None if there is none.

    Such definitions have the same name, environment and line, and experts of the same sizes and view.
    """
    return _newest_head(tx, _others(global_index))


def beginning(tx: sa.Connection, global_index: int) -> VersionRecord | None:
    """Return the newest head of the skill that an expert's skill begins as; None if there is none.

    It belongs to an expert of the same environment, line, sizes and view.
    """
    name = _begins_as(tx, global_index)
    return _newest_head(tx, _others(global_index, name)) if name is not None else None


def view_to_begin_with(tx: sa.Connection, global_index: int, default: View) -> View:
    """Return what a new expert sees: the same as the expert whose head it begins as, or `default`."""
    name = _begins_as(tx, global_index)
    for named in (None, name) if name is not None else (None,):
        version = _newest_head(tx, _others(global_index, named, _SIZES))
        if version is not None:
            seen = sa.select(schema.experts.c.view).where(schema.experts.c.global_index == version.expert)
            return View(tx.execute(seen).scalar_one())
    return default


def _newest_head(tx: sa.Connection, experts: sa.Select[Any]) -> VersionRecord | None:
    query = experts.join(schema.heads, _heads.expert == _OTHER.c.global_index)
    query = query.join(schema.versions, _versions.id == _heads.version).with_only_columns(*schema.versions.c)
    row = tx.execute(query.order_by(_versions.id.desc()).limit(1)).mappings().first()
    return version_record(row) if row is not None else None


def _begins_as(tx: sa.Connection, global_index: int) -> str | None:
    query = sa.select(schema.skills.c.definition).join(
        schema.experts, schema.experts.c.identity == schema.skills.c.identity
    )
    definition = tx.execute(query.where(schema.experts.c.global_index == global_index)).scalar_one()
    name: str | None = definition.get("begins_as")
    return name


def _others(global_index: int, name: str | None = None, alike: Sequence[str] = _ALIKE) -> sa.Select[Any]:
    """The other experts of the same environment that are `alike`, of the skill of that name; None: of its own name."""
    own, skill, other_skill = schema.experts.alias(), schema.skills.alias(), schema.skills.alias()
    named = other_skill.c.name == (skill.c.name if name is None else name)
    query = sa.select(_OTHER.c.global_index).select_from(own)
    query = query.join(skill, skill.c.identity == own.c.identity)
    query = query.join(other_skill, sa.and_(named, other_skill.c.env == skill.c.env))
    query = query.join(_OTHER, _OTHER.c.identity == other_skill.c.identity)
    query = query.where(*(_OTHER.c[column] == own.c[column] for column in alike))
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
    """Return the expert's version with this content; a new one if it has none.

    A new one's frames include its parent's, unless that one was trained for another skill.

    Raises:
        StorageError: the expert's versions do not come from the parent's expert.
    """
    has = sa.select(schema.versions).where(_versions.expert == expert, _versions.content == content)
    row = tx.execute(has).mappings().first()
    if row is not None:
        return version_record(row)
    before = version_by_id(tx, parent) if parent is not None else None
    is_own = before is not None and before.expert in (expert, *tx.execute(_others(expert)).scalars())
    if before is not None and not is_own and not _begins_from(tx, expert, before.expert):
        raise StorageError(f"version {parent} belongs to expert {before.expert}, not {expert}")
    values = {"kind": "skill", "expert": expert, "content": content, "parent": parent, "run": run}
    frames = (before.frames if before is not None and is_own else 0) + routed_frames
    created = sa.insert(schema.versions).values(frames=frames, created_at=time.time(), **values).returning(_versions.id)
    return version_by_id(tx, tx.execute(created).scalar_one())


def _begins_from(tx: sa.Connection, expert: int, parent: int) -> bool:
    """Whether the skill of `expert` begins as the skill of `parent`."""
    name = _begins_as(tx, expert)
    return name is not None and parent in tx.execute(_others(expert, name)).scalars()


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
