"""The end of a run: versions, heads, bundle and verdict, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError, InputError
from flowrl_core.skills.merging import decide
from flowrl_core.storage import schema
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.records.library import BundleFacts, Compared, ExpertResult, Measured, Merge, VersionRecord
from flowrl_core.storage.records.skill_runs import SkillRunRecord, Verdict
from flowrl_core.storage.registry.rows.campaigns import campaign_by_name
from flowrl_core.storage.registry.rows.library import add_bundle, add_version, heads_of, move_head
from flowrl_core.storage.registry.rows.merges import merges_of
from flowrl_core.storage.registry.rows.skill_runs import claimed_skill_run
from flowrl_core.types import MergePolicy

__all__ = ["Ending", "commit_run"]


@dataclass(frozen=True)
class Ending:
    """The results of a run at its end; the arguments of `SkillRuns.commit`.

    Raises:
        InputError: a learned run without a bundle or experts, a failed one with a bundle, a repeated expert, or no
            comparison although the policy needs one.
    """

    verdict: Verdict
    run_frames: int
    results: tuple[ExpertResult, ...]
    policy: MergePolicy
    bundle: BundleFacts | None
    reason: str
    compared: Compared | None

    def __post_init__(self) -> None:
        indices = [result.global_index for result in self.results]
        if len(set(indices)) < len(indices):
            raise InputError("results", f"an expert appears twice in {sorted(indices)}", "Give each expert one result")
        if (self.bundle is not None) != (self.verdict == "learned"):
            raise InputError(
                "bundle", f"does not fit the verdict {self.verdict!r}", "Give one exactly for learned runs"
            )
        if self.verdict == "learned" and not self.results:
            raise InputError("results", "a learned run without experts", "Give the result of every expert of the plan")
        if self.policy == "evaluated" and self.verdict == "learned" and self.compared is None:
            raise InputError("compared", "missing under the policy 'evaluated'", "Compare the versions with the heads")


def commit_run(tx: sa.Connection, run_id: int, ending: Ending, epoch: int | None) -> list[Merge]:
    """End a run with its results, and return its merges; an existing verdict stands.

    Raises:
        ConflictError: the run was claimed after `epoch` or never sealed, or an expert's head is not the one compared
            with.
    """
    record = claimed_skill_run(tx, run_id, epoch)
    if record.verdict is not None:
        return merges_of(tx, [run_id]).get(run_id, [])
    heads = heads_of(tx, [result.global_index for result in ending.results])
    versions: dict[int, int] = {}
    for result in sorted(ending.results, key=lambda r: r.global_index):
        version = add_version(
            tx,
            run_id,
            result.global_index,
            result.content,
            routed_frames=result.routed_frames,
            parent=result.seed_version,
        )
        versions[result.global_index] = version.id
        crash_point("commit_version")
        _merge(tx, run_id, ending, result, version, heads.get(result.global_index))
        crash_point("commit_merge")
    if ending.bundle is not None:
        line = campaign_by_name(tx, record.campaign).line
        add_bundle(tx, run_id, record.identity, line, _plan(record), versions, ending.bundle)
        crash_point("commit_bundle")
    ended = {"verdict": ending.verdict, "reason": ending.reason, "ended_at": time.time()}
    tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run_id).values(**ended))
    own = sa.update(schema.skill_runs).where(schema.skill_runs.c.run == run_id)
    tx.execute(own.values(run_frames=ending.run_frames))
    return merges_of(tx, [run_id]).get(run_id, [])


def _merge(
    tx: sa.Connection,
    run_id: int,
    ending: Ending,
    result: ExpertResult,
    version: VersionRecord,
    head: VersionRecord | None,
) -> None:
    measured = _measured(ending, result.global_index, head)
    action = decide(
        ending.policy,
        is_learned=ending.verdict == "learned",
        head_frames=head.frames if head else None,
        candidate_frames=version.frames,
        changed=head is None or head.id != version.id,
        successes=(measured.head_successes, measured.version_successes) if measured else None,
    )
    before = head.id if head else None
    after = before if action == "kept" else version.id
    if action != "kept" and not move_head(tx, result.global_index, before, version.id):
        raise ConflictError(
            f"the head of expert {result.global_index} was moved while run {run_id} ended; commit it again"
        )
    moved = {"action": action, "version": version.id, "from_version": before, "to_version": after}
    figures = {"frames": version.frames, "routed_frames": result.routed_frames}
    comparison = asdict(measured) if measured else None
    tx.execute(
        sa.insert(schema.merges).values(run=run_id, expert=result.global_index, **moved, **figures, measured=comparison)
    )


def _measured(ending: Ending, expert: int, head: VersionRecord | None) -> Measured | None:
    """The measurement against the current head, which must be the one that was read."""
    if ending.compared is None:
        return None
    if ending.compared.heads.get(expert) != (head.id if head else None):
        raise ConflictError(f"the head of expert {expert} was moved while it was measured; measure and commit again")
    return ending.compared.measured.get(expert)


def _plan(record: SkillRunRecord) -> Mapping[str, Any]:
    if record.plan is None:
        raise ConflictError(f"run {record.id} ({record.skill}) was never sealed; prepare it first")
    return record.plan.as_dict()
