"""Runs of skills: each is one training of one skill, with its attempts, looks and end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.digest import digest
from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.skills.model import Plan
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.library import BundleFacts, Compared, ExpertResult, Merge
from flowrl_core.storage.records.runs import Attempt
from flowrl_core.storage.records.skill_runs import Look, SkillRunRecord, Verdict
from flowrl_core.storage.records.skills import SkillFact
from flowrl_core.storage.registry.commit import Ending, commit_run
from flowrl_core.storage.registry.rows.attempts import add_attempt
from flowrl_core.storage.registry.rows.campaigns import campaign_by_name
from flowrl_core.storage.registry.rows.facts import facts_of
from flowrl_core.storage.registry.rows.failures import failed_before
from flowrl_core.storage.registry.rows.merges import merges_of
from flowrl_core.storage.registry.rows.runs import open_run
from flowrl_core.storage.registry.rows.skill_runs import (
    claimed_skill_run,
    look_record,
    skill_run_by_id,
    skill_run_record,
)
from flowrl_core.types import MergePolicy

__all__ = ["SkillRuns"]

_runs, _own, _read, _looks = schema.runs.c, schema.skill_runs.c, schema.trainings.c, schema.looks.c


@dataclass(frozen=True)
class SkillRuns:
    """The runs of skills in a registry.

    A method that takes an `epoch` raises ConflictError if the run was claimed after it (see `Runs.claim`), with nothing
    written; None skips the check. An id that does not exist is a StorageError.
    """

    engine: sa.Engine

    def get(self, run_id: int) -> SkillRunRecord:
        """Return the run of this id."""
        with reading(self.engine) as tx:
            return skill_run_by_id(tx, run_id)

    def of(self, identity: str, *, line: str | None = None) -> list[SkillRunRecord]:
        """Return the runs of an identity in one line or in all lines, oldest first."""
        campaigns = sa.select(schema.campaigns.c.name).where(schema.campaigns.c.line == line)
        with reading(self.engine) as tx:
            return _select(tx, _read.identity == identity, *([] if line is None else [_read.campaign.in_(campaigns)]))

    def begin(self, campaign: str, identity: str, *, new_run: bool = False) -> Attempt:
        """Return a new attempt; a run is opened for it unless the campaign has an open one of this identity.

        The row is committed before anything is submitted: a process killed in between leaves an attempt without a flow
        run, which is submitted later under the same key.

        Args:
            new_run: begin a new run even if the last one did not learn or the skill was rejected (not needed after a
                start with `retry`).

        Raises:
            InputError: there is no such campaign.
            ConflictError: an attempt is outstanding, the skill is learned, or it counts as failed.
            StorageError: the campaign has no skill of this identity.
        """
        with writing(self.engine) as tx:
            started = campaign_by_name(tx, campaign)
            known = {fact.identity: (name, fact) for name, fact in facts_of(tx, started).items()}
            if identity not in known:
                raise StorageError(f"campaign {campaign!r} has no skill of identity {identity}; start it again")
            name, fact = known[identity]
            _check_may_begin(name, fact, new_run=new_run)
            return _insert(tx, started, identity, name)

    def predecessor(self, run_id: int) -> SkillRunRecord | None:
        """Return the failed run that this one continues with its versions; None if it starts anew.

        After a start that names the skill in `retry`, the next run continues the failed one, unless `from_scratch`.
        """
        with reading(self.engine) as tx:
            return failed_before(tx, skill_run_by_id(tx, run_id))

    def ended(self) -> list[SkillRunRecord]:
        """Return all runs that have a verdict, oldest first."""
        with reading(self.engine) as tx:
            return _select(tx, _read.verdict.is_not(None))

    def seal(
        self,
        run_id: int,
        *,
        plan: Plan,
        remap: Mapping[int, int],
        config: SkillConfig,
        seeds: Mapping[int, int | None],
        epoch: int | None = None,
    ) -> SkillRunRecord:
        """Record the inputs a run was prepared with, and return the run; repeating the call changes nothing.

        Args:
            remap: global to local index.
            seeds: the version each global index starts from; None if freshly initialised.

        Raises:
            ConflictError: it was sealed with other inputs, or has a verdict.
        """
        with writing(self.engine) as tx:
            run = claimed_skill_run(tx, run_id, epoch)
            if (run.plan, run.remap, run.config, run.seeds) == (plan, dict(remap), config, dict(seeds)):
                return run
            _check_open(run)
            if run.plan is not None:
                problem = "is sealed with another plan, remap, configuration or seeds"
                raise ConflictError(f"run {run_id} ({run.skill}) {problem}")
            values: dict[str, Any] = {"plan": plan.as_dict(), "plan_hash": plan.hash}
            # JSON object keys are strings.
            values |= {"remap": {str(k): v for k, v in remap.items()}, "seeds": {str(k): v for k, v in seeds.items()}}
            common: dict[str, Any] = {"config": config.model_dump(mode="json")}
            common["inputs"] = digest({**values, **common}, digits=32)
            tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**common))
            tx.execute(sa.update(schema.skill_runs).where(_own.run == run_id).values(**values))
            return skill_run_by_id(tx, run_id)

    def record_look(self, run_id: int, look: Look, *, epoch: int | None = None) -> Look:
        """Record a look and return it with its number.

        The first look at a frame count stands, so that a killed run gets no second chance.

        Raises:
            ConflictError: the run has a verdict.
        """
        with writing(self.engine) as tx:
            run = claimed_skill_run(tx, run_id, epoch)
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
        """Record the reflection and return the recorded one; the first stands."""
        with writing(self.engine) as tx:
            recorded = claimed_skill_run(tx, run_id, epoch).reflection
            if recorded is not None:
                return recorded
            values = {"reflection": reflection.as_dict()}
            tx.execute(sa.update(schema.skill_runs).where(_own.run == run_id).values(**values))
            return reflection

    def fail(self, run_id: int, reason: str, *, epoch: int | None = None) -> SkillRunRecord:
        """End a run without results (it diverged or cannot be planned) as failed by verdict, and return it.

        An existing verdict stands. Infrastructure trouble is no verdict: it ends the attempt, not the run.
        """
        with writing(self.engine) as tx:
            if claimed_skill_run(tx, run_id, epoch).verdict is None:
                ended = {"verdict": "failed", "reason": reason, "ended_at": time.time()}
                tx.execute(sa.update(schema.runs).where(_runs.id == run_id).values(**ended))
            return skill_run_by_id(tx, run_id)

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
        """End a run (versions, heads, bundle and verdict in one transaction), and return its merges.

        Each result becomes a version named by its content; content that the expert already has reuses that version.
        Its cumulative frames are those of the version it was seeded from plus those routed in this run. Only a
        learned run moves heads (`skills.merging.decide`). `most_frames` decides against the head read in this
        transaction; `evaluated` only against the head that was measured. A second call changes nothing and returns
        the merges of the first.

        Args:
            results: all experts of the run, with their content already in the store of versions.
            bundle: required of a learned run; None otherwise.
            reason: why it failed, in words.
            compared: required of a learned run under the policy `evaluated`.

        Returns:
            One merge per expert, by global index.

        Raises:
            InputError: a learned run without a bundle, a failed one with a bundle, a repeated expert, or no comparison
                although the policy needs one.
            ConflictError: another run has moved a head since it was measured (measure again and repeat the call), or
                the run was never sealed; nothing was changed.
        """
        ending = Ending(verdict, run_frames, tuple(results), policy, bundle, reason, compared)
        with writing(self.engine) as tx:
            merges = commit_run(tx, run_id, ending, epoch)
            crash_point("before_registry_commit")
        crash_point("after_registry_commit")
        return merges

    def merges(self, run_id: int) -> list[Merge]:
        """Return a run's merges, by global index; empty while it is open."""
        with reading(self.engine) as tx:
            return merges_of(tx, [run_id]).get(run_id, [])


def _select(tx: sa.Connection, *where: sa.ColumnElement[bool]) -> list[SkillRunRecord]:
    rows = tx.execute(sa.select(schema.trainings).where(*where).order_by(_read.id)).mappings()
    return [skill_run_record(row) for row in rows]


def _looks_of(tx: sa.Connection, run_id: int) -> list[Look]:
    rows = tx.execute(sa.select(schema.looks).where(_looks.run == run_id).order_by(_looks.number)).mappings()
    return [look_record(row) for row in rows]


def _look_values(look: Look) -> dict[str, Any]:
    copied = ("frames", "episodes", "successes", "lower_bound", "level", "target")
    values: dict[str, Any] = {name: getattr(look, name) for name in copied}
    values |= {"steps": list(look.steps), "worlds": list(look.worlds), "ends": [list(counts) for counts in look.ends]}
    return {**values, "created_at": time.time()}


def _check_open(run: SkillRunRecord) -> None:
    if run.verdict is not None:
        raise ConflictError(f"run {run.id} ({run.skill}) has ended: {run.verdict}")


def _insert(tx: sa.Connection, campaign: Campaign, identity: str, name: str) -> Attempt:
    run = open_run(tx, "skill", name, campaign=campaign.name, subject=identity)
    if tx.execute(sa.select(schema.skill_runs.c.run).where(schema.skill_runs.c.run == run.id)).first() is None:
        tx.execute(sa.insert(schema.skill_runs).values(run=run.id, identity=identity))
    return add_attempt(tx, run)


def _check_may_begin(name: str, fact: SkillFact, *, new_run: bool) -> None:
    if fact.attempt is not None:
        where = f"attempt {fact.attempt.number} of campaign {fact.attempt.campaign!r}"
        raise ConflictError(f"{name}: {where} is outstanding; wait for its end")
    if fact.learned:
        raise ConflictError(f"{name} is learned; it is trained again only if its definition changes")
    if fact.cause == "verdict" and not new_run:
        raise ConflictError(f"{name} did not learn; start the campaign again with the skill in `retry`")
    if fact.cause == "rejected" and not new_run:
        raise ConflictError(f"{name} was rejected; start the campaign again with the skill in `retry`")
    if fact.cause in ("infrastructure", "cancelled"):
        raise ConflictError(f"{name} is failed ({fact.cause}: {fact.reason}); start the campaign again")
