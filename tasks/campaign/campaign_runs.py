"""Flow runs of campaigns, from outside: start once, watch, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flowrl_core.errors import ServiceError
from flowrl_core.specs.campaign import CampaignSpec
from tasks.orchestration.runs.events import RunWatcher
from tasks.orchestration.runs.submission import cancel_runs, end_cancelled, find_runs, is_unheard
from tasks.orchestration.runs.tags import CAMPAIGN_FLOW, campaign_tags
from tasks.skill.submission import live_skill_runs

__all__ = [
    "CAMPAIGN",
    "CampaignRun",
    "cancel_campaign",
    "live_campaign_runs",
    "live_campaigns",
    "start_campaign_run",
    "watch_campaign_run",
]

logger = logging.getLogger(__name__)

CAMPAIGN = f"{CAMPAIGN_FLOW}/default"
"""The deployment of campaigns; prefect.yaml names its pool and queue."""

_ALL_STATES = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_RECONCILE_S = 5.0
_FORGOTTEN_S = 8.0


@dataclass(frozen=True)
class CampaignRun:
    """A campaign's flow run. `attached`: the run existed before, and keeps the parameters it was started with."""

    id: UUID
    registry: str
    campaign: str
    attached: bool


async def start_campaign_run(registry: str, spec: CampaignSpec) -> CampaignRun:
    """Return the campaign's run: the live run of this name if there is one, else a new one.

    Simultaneous callers get the same run: its idempotency key counts the campaign's earlier runs.

    Args:
        registry: uuid of the registry.

    Raises:
        ServiceError: the server does not answer, or lacks the deployments.
    """
    try:
        return await _start(registry, spec)
    except httpx.TransportError as exc:
        raise ServiceError(f"the Prefect server does not answer ({exc!r}): run the same command again") from exc


async def _start(registry: str, spec: CampaignSpec) -> CampaignRun:
    tags = campaign_tags(registry, spec.campaign)
    async with get_client() as client:
        earlier = await find_runs(client, tags, flow=CAMPAIGN_FLOW)
        gone = [run for run in earlier if is_unheard(run)]
        await end_cancelled(client, gone)
        for run in earlier:
            if run not in gone and (run.state is None or not run.state.is_final()):
                return CampaignRun(run.id, registry, spec.campaign, attached=True)
        deployment = await _deployment(client)
        number = len(earlier)
        while True:
            run = await client.create_flow_run_from_deployment(
                deployment,
                name=spec.campaign,
                parameters=spec.model_dump(mode="json"),
                tags=tags,
                idempotency_key=f"{registry}/{spec.campaign}/start/{number}",
            )
            if run.state is None or not run.state.is_final():
                return CampaignRun(run.id, registry, spec.campaign, attached=False)
            number += 1  # taken by a run whose predecessor was deleted from the server


async def watch_campaign_run(run: CampaignRun, *, reconcile: float = _RECONCILE_S) -> AsyncIterator[State | None]:
    """Yield the state of the campaign's run: now, on changes of its or its skills' runs, and every `reconcile` seconds.

    It is None while the server does not answer. The final state is the last.
    """
    async with (
        get_client() as client,
        RunWatcher(campaign_tags(run.registry, run.campaign)[-1:], states=_ALL_STATES) as watcher,
    ):
        while True:
            state = await _state(client, run.id)
            yield state
            if state is not None and state.is_final():
                return
            await watcher.changed(reconcile)


async def cancel_campaign(registry: str, campaign: str, *, patience: float = 45.0) -> bool:
    """Cancel a campaign and its skills' runs; return whether all ended within `patience` seconds.

    The runs save checkpoints. Returns False also if the server does not answer.

    Args:
        registry: uuid of the registry.
    """
    tags = campaign_tags(registry, campaign)
    try:
        async with get_client() as client, RunWatcher(tags[-1:]) as watcher:
            return await _cancel(client, watcher, registry, campaign, patience)
    except (httpx.TransportError, PrefectHTTPStatusError) as exc:
        logger.warning("not cancelled: %r", exc)
        return False


async def live_campaign_runs(client: PrefectClient, registry: str, campaign: str) -> list[FlowRun]:
    """Return the runs of the campaign itself that are not in a final state.

    Args:
        registry: uuid of the registry.
    """
    return await find_runs(client, campaign_tags(registry, campaign), flow=CAMPAIGN_FLOW, only_live=True)


async def live_campaigns(registry: str, campaigns: Iterable[str]) -> list[str]:
    """Return those of the campaigns that have a run of their own that is not in a final state.

    Args:
        registry: uuid of the registry.
    """
    async with get_client() as client:
        return [name for name in campaigns if await live_campaign_runs(client, registry, name)]


async def _cancel(client: PrefectClient, watcher: RunWatcher, registry: str, campaign: str, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        # The campaign first: otherwise it would react to the end of its skills' runs.
        live = await live_campaign_runs(client, registry, campaign)
        live += await live_skill_runs(client, registry, campaign)
        if not live:
            return True
        if time.monotonic() > deadline:
            await end_cancelled(client, live)
            return False
        # Prefect (3.8.8) forgets a run cancelled while its worker was about to start it.
        await end_cancelled(client, [run for run in live if run.run_count == 0 and is_unheard(run, _FORGOTTEN_S)])
        await cancel_runs(client, live)
        await watcher.changed(1.0)


async def _deployment(client: PrefectClient) -> UUID:
    try:
        return (await client.read_deployment_by_name(CAMPAIGN)).id
    except ObjectNotFound as exc:
        raise ServiceError(
            f"the server has no deployment {CAMPAIGN}: run `flowrl up`, or `prefect deploy --all`"
        ) from exc


async def _state(client: PrefectClient, run: UUID) -> State | None:
    with contextlib.suppress(httpx.TransportError, PrefectHTTPStatusError, TimeoutError):
        # Prefect's client would retry for half a minute before it reports that the server does not answer.
        found: FlowRun = await asyncio.wait_for(client.read_flow_run(run), timeout=5.0)
        return found.state
    return None
