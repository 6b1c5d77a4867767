"""Runs: one training of one skill each, with its looks and its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import ConflictError
from flowrl_core.skills.model import Plan
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.library import BundleFacts, Compared, ExpertResult, Merge
from flowrl_core.storage.records.runs import Look, RunRecord, Verdict
from flowrl_core.storage.registry.commit import Ending, commit_run
from flowrl_core.storage.registry.rows.failures import failed_before
from flowrl_core.storage.registry.rows.merges import merges_of
from flowrl_core.storage.registry.rows.runs import claimed_run, look_record, run_by_id, run_record
from flowrl_core.types import MergePolicy

__all__ = ["Runs"]

_runs, _looks = schema.runs.c, schema.looks.c


@dataclass(frozen=True)
class Runs:
    """The runs of a registry.

    A method that takes an `epoch` raises ConflictError if the run was claimed after it (see `claim`), with nothing
    written; None is not checked. An id that does not exist is a StorageError.
    """

    engine: sa.Engine

    def get(self, run_id: int) -> RunRecord:
        """Return the run of this id."""
        with reading(self.engine) as tx:
            return run_by_id(tx, run_id)

    def of(self, identity: str, *, line: str | None = None) -> list[RunRecord]:
        """Return the runs of an identity, oldest first, of the campaigns of one line or of all."""
        campaigns = sa.select(schema.campaigns.c.name).where(schema.campaigns.c.line == line)
        with reading(self.engine) as tx:
            return _select(tx, _runs.identity == identity, *([] if line is None else [_runs.campaign.in_(campaigns)]))

    def predecessor(self, run_id: int) -> RunRecord | None:
        """Return the failed run from whose versions this one goes on; None if it begins anew.

        A start that names the skill in `retry` has the next run go on, unless it says `from_scratch`.
        """
        with reading(self.engine) as tx:
            return failed_before(tx, run_by_id(tx, run_id))

    def ended(self) -> list[RunRecord]:
        """Return all runs that have a verdict, oldest first."""
        with reading(self.engine) as tx:
            return _select(tx, _runs.verdict.is_not(None))

    def claim(self, run_id: int) -> int:
        """Return the epoch of the process that begins to work on the run; all earlier ones are refused from now on.

        Only the run's owner calls this (`ownership.own_run`).
        """
        with writing(self.engine) as tx:
            epoch = run_by_id(tx, run_id).epoch + 1
            tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(epoch=epoch))
            return epoch

    def check_claim(self, run_id: int, epoch: int | None) -> None:
        """Return if the run has not been claimed since `epoch`.

        Raises:
            ConflictError: it has.
        """
        with reading(self.engine) as tx:
            claimed_run(tx, run_id, epoch)

    def seal(
        self,
        run_id: int,
        *,
        plan: Plan,
        remap: Mapping[int, int],
        config: SkillConfig,
        seeds: Mapping[int, int | None],
        epoch: int | None = None,
    ) -> RunRecord:
        """Record what a run was prepared with, and return the run; the same again changes nothing.

        Args:
            remap: global to local index.
            seeds: the version each global index starts from; None for one freshly initialised.

        Raises:
            ConflictError: it was sealed with something else, or has its verdict.
        """
        with writing(self.engine) as tx:
            run = claimed_run(tx, run_id, epoch)
            if (run.plan, run.remap, run.config, run.seeds) == (plan, dict(remap), config, dict(seeds)):
                return run
            _check_open(run)
            if run.plan is not None:
                problem = "is sealed with another plan, remap, configuration or seeds"
                raise ConflictError(f"run {run_id} ({run.skill}) {problem}")
            values: dict[str, Any] = {"plan": plan.as_dict(), "plan_hash": plan.hash}
            # Keys of JSON objects are text.
            values |= {"remap": {str(k): v for k, v in remap.items()}, "seeds": {str(k): v for k, v in seeds.items()}}
            values["config"] = config.model_dump(mode="json")
            tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**values))
            return run_by_id(tx, run_id)

    def record_look(self, run_id: int, look: Look, *, epoch: int | None = None) -> Look:
        """Return the look as recorded, with its number.

        The first look at a number of frames stands: being killed earns no second one.

        Raises:
            ConflictError: the run has its verdict.
        """
        with writing(self.engine) as tx:
            run = claimed_run(tx, run_id, epoch)
            before = _looks_of(tx, run_id)
            for recorded in before:
                if recorded.frames == look.frames:
                    return recorded
            _check_open(run)
            values = _look_values(look)
            tx.execute(sa.insert(schema.looks).values(run=run_id, number=len(before) + 1, **values))
            return _looks_of(tx, run_id)[-1]

    def looks(self, run_id: int) -> list[Look]:
        """Return the run's looks in order."""
        with reading(self.engine) as tx:
            return _looks_of(tx, run_id)

    def record_reflection(self, run_id: int, reflection: Reflection, *, epoch: int | None = None) -> Reflection:
        """Return the reflection as recorded; the first one stands."""
        with writing(self.engine) as tx:
            recorded = claimed_run(tx, run_id, epoch).reflection
            if recorded is not None:
                return recorded
            tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(reflection=reflection.as_dict()))
            return reflection

    def fail(self, run_id: int, reason: str, *, epoch: int | None = None) -> RunRecord:
        """End a run that has no results as failed by verdict, and return it: it diverged, or it cannot be planned.

        A run that has a verdict keeps it. Infrastructure trouble is no verdict: it ends the attempt, not the run.
        """
        with writing(self.engine) as tx:
            if claimed_run(tx, run_id, epoch).verdict is None:
                ended = {"verdict": "failed", "reason": reason, "ended_at": time.time()}
                tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**ended))
            return run_by_id(tx, run_id)

    def commit(
        self,
        run_id: int,
        *,
        verdict: Verdict,
        run_frames: int,
        results: Sequence[ExpertResult],
        policy: MergePolicy,
        bundle: BundleFacts | None = None,
        reason: str = "",
        compared: Compared | None = None,
        epoch: int | None = None,
    ) -> list[Merge]:
        """End a run (versions, heads, bundle and verdict at once), and return its merges.

        Each result becomes a version named by its content; content that the expert has already is that version again.
        Its cumulative frames are those of the version it was seeded from plus those routed in this run. Only a
        learned run moves heads (`skills.merging.decide`). `most_frames` decides against the head as it is in this
        transaction; `evaluated` only against the head that was measured. A second call changes nothing and returns
        what the first did.

        Args:
            results: all experts of the run, their content already in the store of versions.
            bundle: of a learned run, required; None otherwise.
            reason: why it failed, in words.
            compared: required of a learned run under the policy `evaluated`.

        Returns:
            One merge per expert, by global index.

        Raises:
            InputError: a learned run without a bundle, a failed one with a bundle, an expert that comes twice, or no
                comparison where the policy needs one.
            ConflictError: another run has moved a head since it was measured (measure again and call again), or the
                run was never sealed; nothing was changed.
        """
        ending = Ending(verdict, run_frames, tuple(results), policy, bundle, reason, compared)
        with writing(self.engine) as tx:
            merges = commit_run(tx, run_id, ending, epoch)
            crash_point("before_registry_commit")
        crash_point("after_registry_commit")
        return merges

    def merges(self, run_id: int) -> list[Merge]:
        """Return what a run's end meant for its experts, by global index; empty while it is open."""
        with reading(self.engine) as tx:
            return merges_of(tx, [run_id]).get(run_id, [])


def _select(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[RunRecord]:
    rows = tx.execute(sa.select(schema.runs).where(*where).order_by(_runs.id)).mappings()
    return [run_record(row) for row in rows]


def _looks_of(tx: sa.Connection, run_id: int) -> list[Look]:
    rows = tx.execute(sa.select(schema.looks).where(_looks.run == run_id).order_by(_looks.number)).mappings()
    return [look_record(row) for row in rows]


def _look_values(look: Look) -> dict[str, Any]:
    copied = ("frames", "episodes", "successes", "lower_bound", "level", "target")
    values: dict[str, Any] = {name: getattr(look, name) for name in copied}
    values |= {"steps": list(look.steps), "worlds": list(look.worlds), "ends": [list(pair) for pair in look.ends]}
    return {**values, "created_at": time.time()}


def _check_open(run: RunRecord) -> None:
    if run.verdict is not None:
        raise ConflictError(f"run {run.id} ({run.skill}) has ended: {run.verdict}")
