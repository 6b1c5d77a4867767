"""The library: experts, their versions and heads, and bundles."""

from __future__ import annotations

import collections
import time
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import InputError, StorageError
from flowrl_core.skills.model import Plan
from flowrl_core.storage import schema
from flowrl_core.storage.records import Bundle, BundleFacts, ExpertRecord, VersionRecord

__all__ = [
    "add_bundle",
    "add_version",
    "allocate",
    "bundles",
    "experts",
    "heads",
    "move_head",
    "relied_on",
    "version",
    "versions_of",
]

_experts, _versions, _heads, _bundles = schema.experts.c, schema.versions.c, schema.heads.c, schema.bundles.c


def allocate(tx: sa.Connection, identity: str, *, observation_size: int, num_actions: int, width: int) -> ExpertRecord:
    """See `Registry.allocate_expert`."""
    wanted = {"observation_size": observation_size, "num_actions": num_actions, "width": width}
    found = experts(tx, identity=identity)
    if not found:
        last = tx.execute(sa.select(sa.func.max(_experts.global_index))).scalar()
        index = 0 if last is None else last + 1
        tx.execute(sa.insert(schema.experts).values(global_index=index, identity=identity, kind="skill", **wanted))
        return experts(tx, identity=identity)[0]
    for field, value in wanted.items():
        has = getattr(found[0], field)
        if has != value:
            raise InputError(
                field,
                f"the expert of {found[0].name} (number {found[0].global_index}) has {has}, this run {value}",
                f"Use {has}, or another FLOWRL_HOME for experts of another size",
            )
    return found[0]


def experts(tx: sa.Connection, *, identity: str | None = None) -> list[ExpertRecord]:
    """All experts by global index, or the one of an identity."""
    newest = sa.select(sa.func.max(_bundles.id)).where(_bundles.identity == _experts.identity).scalar_subquery()
    query = sa.select(schema.experts, schema.skills.c.name, newest.label("bundle")).join(schema.skills)
    if identity is not None:
        query = query.where(_experts.identity == identity)
    rows = tx.execute(query.order_by(_experts.global_index)).mappings().all()
    head = heads(tx, [row["global_index"] for row in rows])
    copied = ("global_index", "identity", "name", "observation_size", "num_actions", "width", "bundle")
    return [ExpertRecord(**{n: row[n] for n in copied}, head=head.get(row["global_index"])) for row in rows]


def heads(tx: sa.Connection, global_indices: Collection[int]) -> dict[int, VersionRecord]:
    """The heads of these experts; those without one are left out."""
    query = sa.select(schema.versions).join(schema.heads, _heads.version == _versions.id)
    query = query.where(_heads.expert.in_(global_indices)).order_by(_heads.expert)
    return {row["expert"]: _version(row) for row in tx.execute(query).mappings()}


def move_head(tx: sa.Connection, expert: int, from_version: int | None, to_version: int) -> bool:
    """Whether the head was moved: only if it still was `from_version` (compare and set)."""
    if from_version is None:
        tx.execute(sa.insert(schema.heads).values(expert=expert, version=to_version))
        return True
    compared = sa.update(schema.heads).where(_heads.expert == expert, _heads.version == from_version)
    return tx.execute(compared.values(version=to_version)).rowcount == 1


def version(tx: sa.Connection, version_id: int) -> VersionRecord:
    """See `Registry.version`."""
    row = tx.execute(sa.select(schema.versions).where(_versions.id == version_id)).mappings().first()
    if row is None:
        raise StorageError(f"the registry has no version {version_id}")
    return _version(row)


def versions_of(tx: sa.Connection, global_index: int) -> list[VersionRecord]:
    """See `Registry.versions`."""
    query = sa.select(schema.versions).where(_versions.expert == global_index).order_by(_versions.id)
    return [_version(row) for row in tx.execute(query).mappings()]


def relied_on(tx: sa.Connection) -> list[VersionRecord]:
    """See `Registry.relied_on`."""
    needed = sa.select(_heads.version).union(sa.select(schema.bundle_versions.c.version))
    query = sa.select(schema.versions).where(_versions.id.in_(needed)).order_by(_versions.expert, _versions.id)
    return [_version(row) for row in tx.execute(query).mappings()]


def add_version(
    tx: sa.Connection, run: int, expert: int, content: str, *, routed_frames: int, parent: int | None
) -> VersionRecord:
    """The version of this content: the one the expert has already, or a new one that counts its parent's frames too."""
    has = sa.select(schema.versions).where(_versions.expert == expert, _versions.content == content)
    row = tx.execute(has).mappings().first()
    if row is not None:
        return _version(row)
    before = version(tx, parent) if parent is not None else None
    if before is not None and before.expert != expert:
        raise StorageError(f"version {parent} belongs to expert {before.expert}, not {expert}")
    values = {"kind": "skill", "expert": expert, "content": content, "parent": parent, "run": run}
    frames = (before.frames if before else 0) + routed_frames
    created = sa.insert(schema.versions).values(frames=frames, created_at=time.time(), **values).returning(_versions.id)
    return version(tx, tx.execute(created).scalar_one())


def bundles(tx: sa.Connection, *, identity: str | None = None, global_index: int | None = None) -> list[Bundle]:
    """Bundles, newest first: all, those of an identity, or those that hold an expert."""
    query = sa.select(schema.bundles, schema.skills.c.name).join(
        schema.skills, _bundles.identity == schema.skills.c.identity
    )
    if identity is not None:
        query = query.where(_bundles.identity == identity)
    if global_index is not None:
        held = schema.bundle_versions.c
        query = query.where(_bundles.id.in_(sa.select(held.bundle).where(held.expert == global_index)))
    rows = tx.execute(query.order_by(_bundles.id.desc())).mappings().all()
    members = _members(tx, [row["id"] for row in rows])
    return [_bundle(row, members[row["id"]]) for row in rows]


def add_bundle(
    tx: sa.Connection, run: int, identity: str, plan: Mapping[str, Any], versions: Mapping[int, int], facts: BundleFacts
) -> None:
    """The bundle of a learned run; `versions`: global index to version."""
    values = {"plan": plan, "success": facts.success, "lower_bound": facts.lower_bound, "episodes": facts.episodes}
    created = sa.insert(schema.bundles).values(
        run=run, identity=identity, threshold=facts.threshold, created_at=time.time(), **values
    )
    bundle = tx.execute(created.returning(_bundles.id)).scalar_one()
    members = [{"bundle": bundle, "expert": expert, "version": version} for expert, version in versions.items()]
    tx.execute(sa.insert(schema.bundle_versions), members)


def _members(tx: sa.Connection, bundle_ids: Collection[int]) -> dict[int, dict[int, VersionRecord]]:
    held = schema.bundle_versions.c
    query = sa.select(held.bundle.label("bundle"), schema.versions).join(schema.versions, held.version == _versions.id)
    found: dict[int, dict[int, VersionRecord]] = collections.defaultdict(dict)
    for row in tx.execute(query.where(held.bundle.in_(bundle_ids)).order_by(held.expert)).mappings():
        found[row["bundle"]][row["expert"]] = _version(row)
    return found


def _version(row: Mapping[Any, Any]) -> VersionRecord:
    copied = ("id", "kind", "expert", "content", "frames", "parent", "run", "created_at")
    return VersionRecord(**{name: row[name] for name in copied})


def _bundle(row: Mapping[Any, Any], versions: Mapping[int, VersionRecord]) -> Bundle:
    copied = ("id", "run", "identity", "success", "lower_bound", "episodes", "threshold")
    figures = {name: row[name] for name in copied}
    return Bundle(skill=row["name"], plan=Plan.from_dict(row["plan"]), versions=versions, **figures)
