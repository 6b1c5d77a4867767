"""The campaign's turns: read the registry (decisions) and Prefect (executions), act, sleep until woken.

Turns keep no memory, so a campaign that was killed resumes wherever it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flowrl_core.errors import ConflictError, InputError, NoRoomError, ServiceError
from flowrl_core.skills.frontier import Frontier, SkillState, frontier
from flowrl_core.skills.knowledge import Knowledge, is_file_name, load_knowledge, shipped
from flowrl_core.skills.model import Skill
from flowrl_core.skills.skill_states import known_states
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.continuation import effective_spec, with_all_targets, without_defaults
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.proposals.context import initial_knowledge, read_context
from flowrl_core.stages.proposals.propose import check_frontier
from flowrl_core.stages.skill.campaign_check import check_campaign
from flowrl_core.stages.skill.remarks import remarks
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.runs import Attempt
from flowrl_core.storage.records.skill_runs import SkillRunRecord
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.room import check_going_on, naming_no_room
from flowrl_core.vocabulary.catalogue import vocabulary
from tasks.campaign.campaign_runs import live_campaign_runs
from tasks.campaign.proposing import SkillSource, connect_model, skill_source
from tasks.campaign.reconcile import Reconciler
from tasks.campaign.tables import report_campaign, report_proposals
from tasks.orchestration.runs.cancellation import check_begun
from tasks.orchestration.runs.events import RECONCILE_S, TERMINAL, RunWatcher
from tasks.orchestration.runs.run_log import show_logs
from tasks.orchestration.runs.submission import cancel_runs, submit
from tasks.orchestration.runs.tags import campaign_tags, registry_tag
from tasks.skill.submission import live_skill_runs, skill_submission

__all__ = ["CampaignLoop", "Snapshot", "final_state", "open_campaign"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WAKING = (*TERMINAL, "CANCELLING")
_PATIENCE_S = 1800.0
_AGAIN_S = 5.0
# A campaign that lost the server for so long that its run was marked as crashed ends at its next turn.
_GHOST_S = 2 * RECONCILE_S


@dataclass(frozen=True)
class Snapshot:
    """A campaign after one of its turns.

    Attributes:
        states: state of every skill that a target needs.
        by: target -> the skill that is to reach it; None while there is no such skill.
        executing: number of this campaign's attempts that have not ended.
        waiting: number of skills that another campaign is training now.
        is_growing: whether more skills may be added.
        is_cancelled: whether cancellation of the campaign's run was requested.
        reason: why no more skills will be added; empty if there is nothing to report.
    """

    campaign: Campaign
    states: Mapping[str, SkillState]
    by: Mapping[str, str | None]
    executing: int
    waiting: int
    is_growing: bool
    is_cancelled: bool
    reason: str

    @property
    def is_over(self) -> bool:
        """Whether nothing is executing and nothing more will be submitted."""
        has_more = self.waiting or self.is_growing or "ready" in self.states.values()
        return not self.executing and (self.is_cancelled or not has_more)

    @property
    def missed(self) -> tuple[str, ...]:
        """The targets that are not learned."""
        return tuple(target for target, name in self.by.items() if name is None or self.states[name] != "learned")


@dataclass(frozen=True)
class CampaignLoop:
    """The resources of a campaign's turns: Prefect, the registry, the source of its skills, and its watcher."""

    client: PrefectClient
    home: Home
    registry: Registry
    campaign: Campaign
    source: SkillSource
    watcher: RunWatcher

    async def step(self) -> Snapshot:
        """Take one turn: act on changes and return the resulting state.

        Raises:
            ServiceError: the server has not answered for half an hour.
            NoRoomError: the home's disk is full; the runs of the campaign's skills were asked to end.
        """
        try:
            return await _patiently(self._step)
        except NoRoomError:
            with contextlib.suppress(httpx.HTTPError, PrefectHTTPStatusError):
                await self._stop_skills()
            raise

    async def changed(self) -> None:
        """Return when a run of this registry has ended or is about to end, or after a minute."""
        await self.watcher.changed()

    async def reconcile(self) -> str:
        """See `Reconciler`."""
        reconciler = Reconciler(self.client, self.home, self.registry, self.campaign, self._send, self.watcher.wake_in)
        return await reconciler.reconcile()

    async def _step(self) -> Snapshot:
        check_going_on(self.home)
        is_cancelled = await self._is_cancelled()
        if reason := await self.reconcile():
            raise NoRoomError(reason)
        knowledge = self.source.knowledge()
        if is_cancelled:
            await self.source.close()
            await self._stop_skills()
        else:
            await self._submit_ready(knowledge)
        found = self._found(knowledge)
        is_growing = not is_cancelled and self.source.look(found)
        return self._snapshot(found, is_growing, is_cancelled)

    async def _stop_skills(self) -> None:
        await cancel_runs(self.client, await live_skill_runs(self.client, self.registry.uuid, self.campaign.name))

    async def _is_cancelled(self) -> bool:
        """Whether this run is being cancelled; the worker, which then ends its process, may notice later.

        Raises:
            ConflictError: the run has ended: another start leads the campaign, or will.
        """
        if not flow_run.id:
            return False
        state = (await self.client.read_flow_run(UUID(flow_run.id))).state
        if state is not None and state.is_final():
            raise ConflictError(
                f"the server has ended this run ({state.name}: {state.message}); start the campaign again"
            )
        return state is not None and state.is_cancelling()

    async def _submit_ready(self, knowledge: Knowledge) -> None:
        ready = self._found(knowledge).ready
        limits = self.campaign.spec.limits
        if limits.approval == "required":
            room = len(ready)  # runs that wait for a person take nothing from the others
        else:
            room = limits.max_parallel - len(self.registry.attempts.outstanding(self.campaign.name))
        for skill in ready[: max(0, room)]:
            await self._submit(knowledge.skills[skill])

    def _found(self, knowledge: Knowledge) -> Frontier:
        return frontier(knowledge, self.campaign.targets, known_states(self.registry.skills.facts(self.campaign.name)))

    async def _submit(self, skill: Skill) -> None:
        identity = skill.identity(self.campaign.env)
        try:
            attempt = self.registry.skill_runs.begin(self.campaign.name, identity)
        except ConflictError as exc:  # another campaign was faster
            logger.info("not submitted: %s", exc)
            return
        crash_point("before_submission")
        run = await self._send(attempt)
        logger.info("submitted %s (attempt %d)", skill.name, attempt.number)
        if run.state is not None and run.state.is_final():
            self.watcher.wake_in(0.0)  # an old run under an old key: no event will arrive

    async def _send(self, attempt: Attempt) -> FlowRun:
        config = resolve(attempt.name, self.campaign.spec, **self.source.settings(attempt.name))
        record = self.registry.skill_runs.get(attempt.run)
        held = self.registry.skills.definition(record.identity).skill if self._needs_approval(record) else None
        run = await submit(self.client, skill_submission(self.registry.uuid, attempt, config, held=held))
        if held is not None:
            logger.info("%s waits for approval: resume or cancel its run in the UI", attempt.name)
        crash_point("after_submission")
        self.registry.attempts.set_flow_run(attempt.id, str(run.id))
        return run

    def _needs_approval(self, run: SkillRunRecord) -> bool:
        """Whether a person must approve the run; a run that is already prepared was approved before."""
        return self.campaign.spec.limits.approval == "required" and run.seeds is None

    def _snapshot(self, found: Frontier, is_growing: bool, is_cancelled: bool) -> Snapshot:
        outstanding = self.registry.attempts.outstanding(self.campaign.name)
        mine = {attempt.name for attempt in outstanding}
        waiting = [name for name in found.submitted if name not in mine]
        return Snapshot(
            self.campaign,
            found.states,
            found.by,
            executing=len(outstanding),
            waiting=len(waiting),
            is_growing=is_growing,
            is_cancelled=is_cancelled,
            reason=self.source.reason,
        )


@asynccontextmanager
async def open_campaign(spec: CampaignSpec) -> AsyncIterator[CampaignLoop]:
    """Hold the campaign against all other processes, and yield its loop.

    Raises:
        ConflictError: another process runs the campaign.
        RunCancelled: the run was cancelled before it began.
        InputError: the parameters or the knowledge base are wrong, or conflict with an earlier start of this name.
    """
    show_logs()
    home = Home.from_environment()
    with _accepted(home, spec) as (registry, spec, knowledge):
        watching = RunWatcher([registry_tag(registry.uuid)], states=_WAKING)
        async with get_client() as client:
            if flow_run.id:
                check_begun(await client.read_flow_run_states(UUID(flow_run.id)))
            async with _alone(client, home, registry.uuid, spec.campaign), watching as watcher:
                model = await connect_model(registry, spec, home)
                campaign = registry.campaigns.record(spec, initial_knowledge(knowledge, spec).skills)
                await _tag(client, campaign_tags(registry.uuid, spec.campaign))
                source = skill_source(registry, campaign, knowledge, model, lambda: watcher.wake_in(0.0))
                loop = CampaignLoop(client, home, registry, campaign, source, watcher)
                # Leftovers of an earlier start belong to that start, so they are settled before the new one begins.
                await _patiently(loop.reconcile)
                try:
                    with naming_no_room(home):
                        yield replace(loop, campaign=registry.campaigns.begin_start(spec))
                finally:
                    await source.close()


@contextmanager
def _accepted(home: Home, asked: CampaignSpec) -> Iterator[tuple[Registry, CampaignSpec, Knowledge]]:
    """Check the start of a campaign, then yield the registry, the effective spec and the knowledge base.

    A form fills in all parameters, so those that equal their default count as not given.

    A new registry is created only after all checks: a refused campaign leaves nothing behind.

    Raises:
        InputError: see `effective_spec`, `check_frontier`, `load_knowledge` and `check_campaign`.
    """
    with ExitStack() as stack:
        known = Registry.existing(home)
        if known is not None:
            stack.enter_context(known)
        given = without_defaults(asked)
        spec = known.campaigns.effective_spec(given) if known is not None else effective_spec(given, {})
        check_frontier(spec)
        knowledge = _knowledge(home, spec)
        spec = with_all_targets(spec, knowledge.skills)
        context = read_context(known, spec.campaign, spec, initial_knowledge(knowledge, spec))
        for note in check_campaign(context).notes:
            logger.warning("%s", note)
        yield known or stack.enter_context(Registry.open(home)), spec, knowledge


async def final_state(loop: CampaignLoop, snapshot: Snapshot) -> State:
    """Return the final state of the campaign's run, and put a table of its skills on the run's page."""
    if snapshot.is_cancelled:
        return Cancelled(message="the campaign was cancelled")
    figures = loop.registry.skills.figures(loop.campaign.name)
    told = remarks(loop.registry, loop.campaign, figures)
    await report_campaign(loop.campaign.name, snapshot.states, [figures[name] for name in snapshot.states], told)
    if proposals := loop.registry.proposals.of(loop.campaign.name):
        await report_proposals(loop.campaign.name, proposals)
    if not snapshot.missed:
        return Completed(message=f"learned {', '.join(loop.campaign.targets)}")
    message = f"not learned: {', '.join(snapshot.missed)}"
    return Failed(name="TargetsMissed", message=f"{message}; {snapshot.reason}" if snapshot.reason else message)


@asynccontextmanager
async def _alone(client: PrefectClient, home: Home, registry: str, campaign: str) -> AsyncIterator[None]:
    """Hold the campaign's lock; wait for a holder whose run the server has ended but whose process still lives."""
    deadline = time.monotonic() + _GHOST_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(home.runs / f"{campaign}.lock", what=f"campaign {campaign}"))
                break
            except ConflictError:
                live = await _patiently(lambda: live_campaign_runs(client, registry, campaign))
                if time.monotonic() > deadline or any(str(run.id) != flow_run.id for run in live):
                    raise
            await asyncio.sleep(1.0)
        yield


def _knowledge(home: Home, spec: CampaignSpec) -> Knowledge:
    vocabulary(spec.env)  # exists
    named = spec.knowledge or spec.env
    knowledge = load_knowledge(home.knowledge_file(named) if is_file_name(named) else shipped(named))
    if knowledge.env != spec.env:
        problem = f"{spec.knowledge} is for {knowledge.env!r}, not {spec.env!r}"
        raise InputError("env", problem, f"Use {knowledge.env}")
    return knowledge


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `work`, retried while the server does not answer."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await work()
        except (httpx.TransportError, PrefectHTTPStatusError) as exc:
            if not _is_passing(exc):
                raise
            if time.monotonic() > deadline:
                raise ServiceError(f"the Prefect server has not answered for {_PATIENCE_S:.0f} s: {exc!r}") from exc
            logger.warning("the Prefect server does not answer (%r); trying again", exc)
            await asyncio.sleep(_AGAIN_S)


def _is_passing(exc: Exception) -> bool:
    return not isinstance(exc, PrefectHTTPStatusError) or exc.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR


async def _tag(client: PrefectClient, tags: list[str]) -> None:
    """Add the tags that `flowrl campaign` sets to a run that was started in the UI."""
    if flow_run.id and not set(tags) <= set(flow_run.tags):
        await client.update_flow_run(flow_run.id, tags={*tags, *flow_run.tags})
