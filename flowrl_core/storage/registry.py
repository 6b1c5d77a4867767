"""The registry: what was decided and learned. Every method is one transaction; every answer is a frozen record.

Infrastructure trouble is never a skill's verdict:

- A run stays open (verdict None) through all of it; each attempt of the skill in the campaign adopts the open run
  with its directory, checkpoints and looks.
- Each time an attempt breaks off is one *interruption*: `count_retry` (the same Prefect run is run again) or
  `end_attempt(..., "infrastructure")`. It counts against the start of the campaign in which it happened.
- A skill is failed with cause `infrastructure` while the interruptions since the campaign's last start exceed its
  `max_retries`, and with cause `cancelled` while an attempt was cancelled since then. Starting the campaign again
  begins a new count.
- A skill is failed with cause `verdict` if its last run in this campaign did not learn. It stays so until a start
  names it in `retry`, or its definition (so its identity) changes. What another campaign failed at is no failure
  here; what it learned is learned.
- A skill is failed with cause `rejected` if a person refused to have it trained in this campaign. It stays so until a
  start names it in `retry`.

An identity has at most one outstanding attempt, whichever campaign submitted it.

A machine that was taken for dead may come back: whoever begins to work on a run claims it (`claim_run`), and what a
process with an older claim wants to write is refused.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from flowrl_core.skills.model import Plan, Skill
from flowrl_core.skills.reflection import Reflection
from flowrl_core.specs.campaign import CampaignSpec, FrontierSpec
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.database import bring_up_to_date, make_engine, reading, revision, writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.limits import Spending
from flowrl_core.storage.reader import check_not_lost, open_to_read
from flowrl_core.storage.records import (
    Attempt,
    AttemptEnd,
    Bundle,
    BundleFacts,
    Campaign,
    Compared,
    EvaluationOf,
    EvaluationRecord,
    Examined,
    ExpertRecord,
    ExpertResult,
    Look,
    Merge,
    ProposalRecord,
    RunRecord,
    SkillFact,
    SkillFigures,
    SkillRecord,
    Verdict,
    VersionRecord,
)
from flowrl_core.storage.rows import (
    attempts,
    campaigns,
    commit,
    evaluations,
    facts,
    figures,
    library,
    proposals,
    requests,
    retention,
    runs,
)
from flowrl_core.types import MergePolicy

__all__ = ["Registry"]


class Registry:
    """The registry of one home. Open one per process; it may be used from several threads.

    Any method raises StorageError if the database cannot be written (full disk, lock held too long), with nothing
    changed, and StorageError for an id that does not exist.
    """

    def __init__(self, engine: sa.Engine, closing: contextlib.ExitStack | None = None) -> None:
        self._engine = engine
        self._closing = closing or contextlib.ExitStack()

    @classmethod
    def open(cls, home: Home) -> Registry:
        """The registry of the home, created or migrated if need be; an older file is backed up beside itself first.

        Raises:
            InputError: the database URL is wrong.
            StorageError: the database has a newer schema than this code, or does not answer.
            CorruptError: the file is not a database, or is empty although the home holds what belongs to it.
        """
        engine = make_engine(home.registry_url)
        home.root.mkdir(parents=True, exist_ok=True)
        if home.belongings and revision(engine) is None:
            check_not_lost(home, engine)
        bring_up_to_date(home, engine)
        return cls(engine)

    @classmethod
    def read(cls, home: Home, *, url: str = "") -> Registry | None:
        """The registry of the home, of which nothing is written; None where no campaign was ever started.

        Args:
            url: of another database than the one that the home is configured for.

        Raises:
            InputError: the database URL is wrong.
            StorageError, CorruptError: as `open`.
        """
        with contextlib.ExitStack() as closing:
            engine = open_to_read(home, closing, url=url)
            return cls(engine, closing.pop_all()) if engine is not None else None

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()
        self._closing.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @functools.cached_property
    def uuid(self) -> str:
        """The registry's own name: part of every idempotency key, so that no server answers with a stranger's run."""
        with reading(self._engine) as tx:
            return str(tx.execute(sa.select(schema.meta.c.uuid)).scalar_one())

    # Campaigns and what is known of their skills

    def start_campaign(self, spec: CampaignSpec, skills: Mapping[str, Skill], *, is_new_start: bool = True) -> Campaign:
        """Begin a campaign, or start it again.

        Targets are added to those it has; limits but `merge`, and the frontier, are replaced; all else must be the
        same. Without targets it is the earlier start again (see `effective_spec`: it says which skills that start
        needs). A new start begins a new count of retries, lifts cancellations, and forgives the failures and rejections
        that `spec.retry` names. The proposals that the campaign has accepted stay its skills.

        Args:
            skills: all skills of the knowledge base, by name; a changed definition gets a new identity. They win over
                proposals of the same name, but for those that revised just these definitions.
            is_new_start: false where the same start only goes on (the flow itself is run again): nothing is lifted.

        Raises:
            InputError: another environment than the registry's; other parameters than the campaign's (the field is
                named); a target or a skill to retry that is not among the skills; a goal that no skill could gain.
        """
        with writing(self._engine) as tx:
            known = proposals.with_accepted(tx, spec, skills)
            return campaigns.start(tx, spec, known, is_new_start=is_new_start)

    def effective_spec(self, spec: CampaignSpec) -> CampaignSpec:
        """What a start with these parameters means: without targets, the campaign's earlier start.

        Raises:
            InputError: no targets, and there is no campaign of this name.
        """
        with reading(self._engine) as tx:
            return campaigns.effective_spec(tx, spec)

    def campaign(self, name: str) -> Campaign:
        """The campaign of this name.

        Raises:
            InputError: there is none.
        """
        with reading(self._engine) as tx:
            return campaigns.get(tx, name)

    def last_campaign(self) -> Campaign | None:
        """The campaign started last; None if there is none."""
        found = self.campaigns()
        return found[0] if found else None

    def campaigns(self) -> list[Campaign]:
        """All campaigns, the one started last first."""
        with reading(self._engine) as tx:
            return campaigns.all_of(tx)

    def skill(self, campaign: str, name: str) -> SkillRecord:
        """What a campaign means by a skill's name now.

        Raises:
            InputError: it has no such skill.
        """
        with reading(self._engine) as tx:
            return campaigns.skill(tx, campaign, name)

    def definition(self, identity: str) -> SkillRecord:
        """The skill of this identity, whatever campaigns mean by its name now."""
        with reading(self._engine) as tx:
            return campaigns.definition(tx, identity)

    def skills(self, campaign: str) -> dict[str, SkillRecord]:
        """All skills of a campaign by name."""
        with reading(self._engine) as tx:
            return campaigns.skills_of(tx, campaign)

    def facts(self, campaign: str) -> dict[str, SkillFact]:
        """What is known of every skill of a campaign, by name, in one consistent view."""
        with reading(self._engine) as tx:
            return facts.of_campaign(tx, campaigns.get(tx, campaign))

    def figures(self, campaign: str) -> dict[str, SkillFigures]:
        """What a table of the campaign shows, by skill name, in one consistent view."""
        with reading(self._engine) as tx:
            return figures.of_campaign(tx, campaigns.get(tx, campaign))

    # Proposals, and what language models cost

    def record_round(
        self, campaign: str, examined: Sequence[Examined], *, model: str, call: str = ""
    ) -> list[ProposalRecord]:
        """Record all that one answer brought as the campaign's next round; accepted proposals become its skills.

        A new definition takes the place of one of the same name that failed. Where it is one that failed before, that
        failure does not count any more.

        Args:
            examined: at least one.
            call: the journal's key of the answer; where a round has it already, nothing is changed.

        Returns:
            The round's records, in the order of `examined`.

        Raises:
            ConflictError: an accepted name is taken by a definition that did not fail; nothing of the round was
                written.
        """
        if not examined:
            raise ValueError("a round has at least one row: say what was wrong with the answer")
        with writing(self._engine) as tx:
            records = proposals.record_round(tx, campaigns.get(tx, campaign), examined, model=model, call=call)
            crash_point("before_round_record")
        crash_point("after_round_record")
        return records

    def proposals(self, campaign: str) -> list[ProposalRecord]:
        """All that was proposed to a campaign, oldest first."""
        with reading(self._engine) as tx:
            return proposals.of_campaign(tx, campaigns.get(tx, campaign).name)

    def reserve_request(
        self,
        campaign: str,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        cost: float | None,
        limits: FrontierSpec,
    ) -> int:
        """The number of a request to a language model that may now be sent, booked with the most that it can be.

        Args:
            input_tokens, output_tokens: upper bounds.
            cost: the same in US dollars; None if the model has no known price.
            limits: of the campaign as it was last started.

        Raises:
            BudgetError: with it the campaign could exceed a limit, which is named; nothing was booked.
        """
        bounds = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        with writing(self._engine) as tx:
            name = campaigns.get(tx, campaign).name
            return requests.reserve(tx, name, model, **bounds, cost=cost, limits=limits)

    def settle_request(
        self,
        request: int,
        outcome: str,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
    ) -> None:
        """Note what became of a request; the first settlement stands.

        Args:
            outcome: `answered`, or the code of an error.
            input_tokens, output_tokens, cost: what it was; None: not told, so the bound counts.
        """
        told = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        with writing(self._engine) as tx:
            requests.settle(tx, request, outcome, **told, cost=cost)

    def spending(self, campaign: str) -> Spending:
        """What the campaign has spent on language models so far."""
        with reading(self._engine) as tx:
            return requests.spending(tx, campaigns.get(tx, campaign).name)

    # Attempts

    def begin_attempt(self, campaign: str, identity: str, *, new_run: bool = False) -> Attempt:
        """The row of a new attempt, committed before anything is submitted; a run is opened for it unless one is open.

        Args:
            new_run: begin a new run although the last one did not learn, or the skill was rejected (a start with
                `retry` does that already).

        Raises:
            ConflictError: an attempt is outstanding, the skill is learned, or it counts as failed (see the module's
                rules).
        """
        with writing(self._engine) as tx:
            return attempts.begin(tx, campaigns.get(tx, campaign), identity, new_run=new_run)

    def attempt(self, attempt_id: int) -> Attempt:
        """The attempt as it is now."""
        with reading(self._engine) as tx:
            return attempts.get(tx, attempt_id)

    def set_flow_run(self, attempt_id: int, flow_run_id: str) -> Attempt:
        """Note which Prefect run an attempt became."""
        with writing(self._engine) as tx:
            return attempts.set_flow_run(tx, attempt_id, flow_run_id)

    def count_retry(self, attempt_id: int, reason: str, *, execution: int | None = None) -> Attempt:
        """Count that an attempt broke off and that the same Prefect run is run again.

        Args:
            execution: the Prefect run's `run_count` that broke off; it is counted once, however often this is called.
        """
        with writing(self._engine) as tx:
            return attempts.count_retry(tx, attempt_id, reason, execution)

    def end_attempt(self, attempt_id: int, end: AttemptEnd, reason: str = "") -> Attempt:
        """End an attempt; the first end stands.

        A run with a verdict ends its attempt by `verdict`, whatever the caller saw: the registry wins. The other way
        round, an end by `verdict` without one is taken as `infrastructure`.
        """
        with writing(self._engine) as tx:
            return attempts.end(tx, attempt_id, end, reason)

    def outstanding(self, campaign: str) -> list[Attempt]:
        """The campaign's attempts that have not ended, oldest first; without a flow run: submit (again)."""
        with reading(self._engine) as tx:
            return attempts.outstanding(tx, campaign)

    # Experts, versions and bundles

    def allocate_expert(self, identity: str, *, observation_size: int, num_actions: int, width: int) -> ExpertRecord:
        """The expert of an identity, given the next global index if it has none; twice gives the same.

        Raises:
            InputError: it exists with other sizes (both are named).
        """
        with writing(self._engine) as tx:
            return library.allocate(
                tx, identity, observation_size=observation_size, num_actions=num_actions, width=width
            )

    def expert(self, identity: str) -> ExpertRecord | None:
        """The expert of an identity; None if none was allocated."""
        with reading(self._engine) as tx:
            return next(iter(library.experts(tx, identity=identity)), None)

    def experts(self) -> list[ExpertRecord]:
        """All experts by global index."""
        with reading(self._engine) as tx:
            return library.experts(tx)

    def head(self, global_index: int) -> VersionRecord | None:
        """The version the next run of this expert starts from; None before its skill is learned."""
        with reading(self._engine) as tx:
            return library.heads(tx, [global_index]).get(global_index)

    def version(self, version_id: int) -> VersionRecord:
        """The version of this id."""
        with reading(self._engine) as tx:
            return library.version(tx, version_id)

    def versions(self, global_index: int) -> list[VersionRecord]:
        """All versions of an expert, oldest first."""
        with reading(self._engine) as tx:
            return library.versions_of(tx, global_index)

    def bundle(self, identity: str) -> Bundle | None:
        """The versions with which an identity was measured as learned; None if it is not learned."""
        with reading(self._engine) as tx:
            return next(iter(library.bundles(tx, identity=identity)), None)

    def bundles_with(self, global_index: int) -> list[Bundle]:
        """All bundles that hold a version of this expert, newest first."""
        with reading(self._engine) as tx:
            return library.bundles(tx, global_index=global_index)

    def begin_evaluation(
        self, identity: str, of: EvaluationOf, versions: Mapping[int, int], *, episodes: int, level: float
    ) -> int:
        """The id of a new evaluation, which names its worlds; it counts once `record_evaluation` was called."""
        with writing(self._engine) as tx:
            return evaluations.begin(tx, identity, of, versions, episodes=episodes, level=level)

    def record_evaluation(
        self, evaluation: int, *, successes: int, lower_bound: float, steps: Sequence[float], worlds: Sequence[int]
    ) -> EvaluationRecord:
        """The evaluation with what came of it; the first record stands."""
        figures = {"successes": successes, "lower_bound": lower_bound, "steps": list(steps), "worlds": list(worlds)}
        with writing(self._engine) as tx:
            return evaluations.record(tx, evaluation, figures)

    def evaluations(self, identity: str) -> list[EvaluationRecord]:
        """The evaluations of an identity that were recorded, oldest first."""
        with reading(self._engine) as tx:
            return evaluations.of_identity(tx, identity)

    def relied_on(self) -> list[VersionRecord]:
        """The versions that are a head or in a bundle, by expert: those that later runs start from, or may."""
        with reading(self._engine) as tx:
            return library.relied_on(tx)

    def needed_contents(self) -> frozenset[str]:
        """The contents of all versions that are a head, in a bundle, or that an open run was seeded from."""
        with reading(self._engine) as tx:
            return retention.needed_contents(tx)

    # Runs

    def run(self, run_id: int) -> RunRecord:
        """The run of this id."""
        with reading(self._engine) as tx:
            return runs.get(tx, run_id)

    def runs(self, identity: str) -> list[RunRecord]:
        """All runs of an identity, oldest first."""
        with reading(self._engine) as tx:
            return runs.of_identity(tx, identity)

    def claim_run(self, run_id: int) -> int:
        """The epoch of the process that begins to work on the run: every earlier one is fenced from now on.

        To be called by the run's owner (`ownership.own_run`). Given to the methods below, an epoch that is not the
        run's last one is a ConflictError; None is not checked.
        """
        with writing(self._engine) as tx:
            return runs.claim(tx, run_id)

    def check_claim(self, run_id: int, epoch: int | None) -> None:
        """Nothing, if the run has not been claimed since `epoch`.

        Raises:
            ConflictError: it has.
        """
        with reading(self._engine) as tx:
            runs.check_claim(runs.get(tx, run_id), epoch)

    def ended_runs(self) -> list[RunRecord]:
        """All runs that have a verdict, oldest first."""
        with reading(self._engine) as tx:
            return retention.ended_runs(tx)

    def seal_run(
        self,
        run_id: int,
        *,
        plan: Plan,
        remap: Mapping[int, int],
        config: SkillConfig,
        seeds: Mapping[int, int | None],
        epoch: int | None = None,
    ) -> RunRecord:
        """Record what a run was prepared with; the same again changes nothing.

        Args:
            remap: global to local index.
            seeds: the version each global index starts from; None for one freshly initialised.

        Raises:
            ConflictError: it was sealed with something else, has its verdict, or was claimed after `epoch`.
        """
        with writing(self._engine) as tx:
            return runs.seal(tx, run_id, plan=plan, remap=remap, config=config, seeds=seeds, epoch=epoch)

    def record_look(self, run_id: int, look: Look, *, epoch: int | None = None) -> Look:
        """The look as recorded, with its number.

        The first look at a number of frames stands: a kill buys no second one.

        Raises:
            ConflictError: the run has its verdict, or was claimed after `epoch`.
        """
        with writing(self._engine) as tx:
            return runs.record_look(tx, run_id, look, epoch)

    def looks(self, run_id: int) -> list[Look]:
        """The run's looks in order."""
        with reading(self._engine) as tx:
            return runs.looks(tx, run_id)

    def record_reflection(self, run_id: int, reflection: Reflection, *, epoch: int | None = None) -> Reflection:
        """The reflection as recorded; the first one stands.

        Raises:
            ConflictError: the run was claimed after `epoch`.
        """
        with writing(self._engine) as tx:
            return runs.record_reflection(tx, run_id, reflection, epoch)

    def fail_run(self, run_id: int, reason: str, *, epoch: int | None = None) -> RunRecord:
        """End a run that has no results as failed by verdict: it diverged, or it cannot be planned.

        A run that has a verdict keeps it. Infrastructure trouble is no verdict: see `end_attempt`.

        Raises:
            ConflictError: the run was claimed after `epoch`.
        """
        with writing(self._engine) as tx:
            return runs.fail(tx, run_id, reason, epoch)

    def commit_run(
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
        """End a run: versions, heads, bundle and verdict at once.

        A second call changes nothing and answers as the first did.
        Each result becomes a version named by its content; content that the expert has already is that version again.
        Its cumulative frames are those of the version it was seeded from plus those routed in this run. Only a
        learned run moves heads (`skills.merging.decide`), and each only from the head that was read.

        Args:
            results: all experts of the run, their content already in the store of versions.
            bundle: of a learned run, required; None otherwise.
            reason: why it failed, in words.
            compared: required of a learned run under the policy `evaluated`.

        Returns:
            One merge per expert, by global index.

        Raises:
            InputError: a learned run without a bundle, the other way round, an expert that comes twice, or no
                comparison where the policy needs one.
            ConflictError: a head was moved by somebody else in between (nothing was changed; call again), or the run
                was claimed after `epoch`.
        """
        ending = commit.Ending(verdict, run_frames, tuple(results), policy, bundle, reason, compared)
        with writing(self._engine) as tx:
            merges = commit.run(tx, run_id, ending, epoch)
            crash_point("before_registry_commit")
        crash_point("after_registry_commit")
        return merges

    def merges(self, run_id: int) -> list[Merge]:
        """What a run's end meant for its experts, by global index; empty while it is open."""
        with reading(self._engine) as tx:
            return commit.merges(tx, [run_id]).get(run_id, [])
