"""The library: experts, their versions and heads, and bundles.

It has lines: the shared one, named "", and a separate one, under the campaign's name, for each campaign started with
`fresh`. A definition has an expert in each line in which it is trained; versions, heads and bundles belong to the line
of their experts. Work in one line neither reads nor changes another.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import InputError
from flowrl_core.skills.model import Plan
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.library import Bundle, ExpertRecord, VersionRecord
from flowrl_core.storage.registry.rows.failures import left_by_failed_runs
from flowrl_core.storage.registry.rows.library import (
    beginning,
    earlier_head,
    heads_of,
    version_by_id,
    version_record,
    view_to_begin_with,
)
from flowrl_core.types import View

__all__ = ["Library"]

_experts, _versions, _heads, _bundles = schema.experts.c, schema.versions.c, schema.heads.c, schema.bundles.c


@dataclass(frozen=True)
class Library:
    """The experts, versions and bundles of a registry; only `SkillRuns.commit` adds versions, heads and bundles."""

    engine: sa.Engine

    def allocate(
        self,
        identity: str,
        *,
        observation_size: int,
        num_actions: int,
        width: int,
        view: View = View.PLAIN,
        line: str = "",
    ) -> ExpertRecord:
        """Return the expert of an identity in a line, allocated with the next global index if there is none.

        A new one sees as the expert whose head it begins as, or else as `view` says.

        Raises:
            InputError: it exists with other sizes (the message names both).
        """
        wanted = {"observation_size": observation_size, "num_actions": num_actions, "width": width}
        with writing(self.engine) as tx:
            is_it = (_experts.identity == identity, _experts.line == line)
            found = _select_experts(tx, *is_it)
            if found:
                _check_sizes(found[0], wanted)
                return found[0]
            last = tx.execute(sa.select(sa.func.max(_experts.global_index))).scalar()
            index = 0 if last is None else last + 1
            named = {"global_index": index, "identity": identity, "line": line, "kind": "skill"}
            tx.execute(sa.insert(schema.experts).values(**named, **wanted))
            seen = {"view": int(view_to_begin_with(tx, index, view))}
            tx.execute(sa.update(schema.experts).where(_experts.global_index == index).values(seen))
            return _select_experts(tx, *is_it)[0]

    def expert(self, identity: str, *, line: str = "") -> ExpertRecord | None:
        """Return the expert of an identity in a line; None if none was allocated."""
        with reading(self.engine) as tx:
            return next(iter(_select_experts(tx, _experts.identity == identity, _experts.line == line)), None)

    def experts(self) -> list[ExpertRecord]:
        """Return the experts of all lines, by global index."""
        with reading(self.engine) as tx:
            return _select_experts(tx)

    def head(self, global_index: int) -> VersionRecord | None:
        """Return the version the next run of this expert starts from; None before its skill is learned."""
        with reading(self.engine) as tx:
            return heads_of(tx, [global_index]).get(global_index)

    def earlier_head(self, global_index: int) -> VersionRecord | None:
        """Return the newest head that an earlier definition of this expert's skill has in the same line.

        None if there is none, or none with a network of the same sizes.
        """
        with reading(self.engine) as tx:
            return earlier_head(tx, global_index)

    def beginning(self, global_index: int) -> VersionRecord | None:
        """Return the newest head, in the same line, of the skill that this expert's skill begins as.

        None if there is none, or none with a network of the same sizes.
        """
        with reading(self.engine) as tx:
            return beginning(tx, global_index)

    def version(self, version_id: int) -> VersionRecord:
        """Return the version of this id.

        Raises:
            StorageError: there is none.
        """
        with reading(self.engine) as tx:
            return version_by_id(tx, version_id)

    def versions(self, global_index: int) -> list[VersionRecord]:
        """Return all versions of an expert, oldest first."""
        query = sa.select(schema.versions).where(_versions.expert == global_index).order_by(_versions.id)
        with reading(self.engine) as tx:
            return [version_record(row) for row in tx.execute(query).mappings()]

    def bundle(self, identity: str, *, line: str = "") -> Bundle | None:
        """Return the newest bundle of an identity in a line; None if it is not learned there."""
        with reading(self.engine) as tx:
            return next(iter(_select_bundles(tx, _bundles.identity == identity, _bundles.line == line)), None)

    def bundles_with(self, global_index: int) -> list[Bundle]:
        """Return all bundles that contain a version of this expert, newest first."""
        held = schema.bundle_versions.c
        with reading(self.engine) as tx:
            return _select_bundles(tx, _bundles.id.in_(sa.select(held.bundle).where(held.expert == global_index)))

    def relied_on(self) -> list[VersionRecord]:
        """Return the versions that are a head or in a bundle, by expert: later runs may start from them."""
        needed = sa.select(_heads.version).union(sa.select(schema.bundle_versions.c.version))
        query = sa.select(schema.versions).where(_versions.id.in_(needed)).order_by(_versions.expert, _versions.id)
        with reading(self.engine) as tx:
            return [version_record(row) for row in tx.execute(query).mappings()]

    def needed_contents(self) -> frozenset[str]:
        """Return the contents of all versions that are a head, in a bundle, or a possible start of a run.

        The last are the seeds of open runs, and the versions left by the last failed run of each skill until the skill
        is learned (see `SkillRuns.predecessor`).
        """
        with reading(self.engine) as tx:
            trainings = schema.trainings.c
            of_open_runs = tx.execute(sa.select(trainings.seeds).where(trainings.verdict.is_(None))).scalars()
            seeds = {version for found in of_open_runs for version in (found or {}).values() if version is not None}
            needed = sa.or_(
                _versions.id.in_(sa.select(_heads.version)),
                _versions.id.in_(sa.select(schema.bundle_versions.c.version)),
                _versions.id.in_(seeds),
                _versions.id.in_(left_by_failed_runs()),
            )
            return frozenset(tx.execute(sa.select(_versions.content).where(needed)).scalars())


def _check_sizes(expert: ExpertRecord, wanted: Mapping[str, int]) -> None:
    for field, value in wanted.items():
        has = getattr(expert, field)
        if has != value:
            raise InputError(
                field,
                f"the expert of {expert.name} (number {expert.global_index}) has {has}, this run {value}",
                f"Use {has}, or a campaign with a library of its own (fresh) for experts of another size",
            )


def _select_experts(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[ExpertRecord]:
    is_its_own = (_bundles.identity == _experts.identity, _bundles.line == _experts.line)
    newest = sa.select(sa.func.max(_bundles.id)).where(*is_its_own).scalar_subquery()
    named = (schema.skills.c.name, schema.skills.c.env)
    query = sa.select(schema.experts, *named, newest.label("bundle")).join(schema.skills).where(*where)
    rows = tx.execute(query.order_by(_experts.global_index)).mappings().all()
    head = heads_of(tx, [row["global_index"] for row in rows])
    sizes = ("observation_size", "num_actions", "width")
    copied = ("global_index", "identity", "env", "line", "name", "bundle", *sizes)
    return [
        ExpertRecord(**{n: row[n] for n in copied}, view=View(row["view"]), head=head.get(row["global_index"]))
        for row in rows
    ]


def _select_bundles(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Bundle]:
    """The matching bundles with their versions, newest first."""
    query = sa.select(schema.bundles, schema.skills.c.name)
    query = query.join(schema.skills, _bundles.identity == schema.skills.c.identity).where(*where)
    rows = tx.execute(query.order_by(_bundles.id.desc())).mappings().all()
    members = _members(tx, [row["id"] for row in rows])
    return [_bundle(row, members[row["id"]]) for row in rows]


def _members(tx: sa.Connection, bundle_ids: Collection[int]) -> dict[int, dict[int, VersionRecord]]:
    held = schema.bundle_versions.c
    query = sa.select(held.bundle.label("bundle"), schema.versions).join(schema.versions, held.version == _versions.id)
    found: dict[int, dict[int, VersionRecord]] = collections.defaultdict(dict)
    for row in tx.execute(query.where(held.bundle.in_(bundle_ids)).order_by(held.expert)).mappings():
        found[row["bundle"]][row["expert"]] = version_record(row)
    return found


def _bundle(row: Mapping[Any, Any], versions: Mapping[int, VersionRecord]) -> Bundle:
    copied = ("id", "run", "identity", "line", "success", "lower_bound", "episodes", "threshold")
    figures = {name: row[name] for name in copied}
    return Bundle(skill=row["name"], plan=Plan.from_dict(row["plan"]), versions=versions, **figures)
