"""Set up a Prefect server for FlowRL: pools, the deployments of prefect.yaml, an automation for lost runs."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from tasks.orchestration.runs.lost import declare_lost
from tasks.orchestration.runs.tags import FLOWRL
from tasks.orchestration.server.deployments import ensure_deployments

__all__ = ["POOLS", "bootstrap", "bootstrap_server", "tell_lost"]

POOLS = ("control", "gpu")

_HEARTBEAT_S = 30  # PREFECT_FLOWS_HEARTBEAT_FREQUENCY; Prefect's minimum
_LOST = "flowrl: a run without heartbeat has crashed"


def bootstrap_server(*, own: bool, registry: str | None, redeploy: bool = False) -> None:
    """Run `bootstrap`, then `declare_lost`, on the server of Prefect's settings.

    Args:
        own: whether this machine started the server; existing deployments are then updated.
        redeploy: update them on any other server, too.
    """

    async def work() -> None:
        async with get_client() as client:
            await bootstrap(client, update=own or redeploy)
            await declare_lost(client, registry=registry, own=own)

    asyncio.run(work())


def tell_lost(*, own: bool, registry: str | None) -> None:
    """Run `declare_lost` on the server of Prefect's settings."""

    async def work() -> None:
        async with get_client() as client:
            await declare_lost(client, registry=registry, own=own)

    asyncio.run(work())


async def bootstrap(client: PrefectClient, *, update: bool) -> None:
    """Create pools, deployments and the automation on a server. Safe to repeat.

    Args:
        update: whether to update existing deployments; otherwise only missing ones are added.
    """
    for pool in POOLS:
        await _ensure_pool(client, pool)
    await ensure_deployments(client, update=update)
    if not await client.read_automations_by_name(_LOST):
        await client.create_automation(_lost_automation())


async def _ensure_pool(client: PrefectClient, name: str) -> None:
    # No limit: each machine's worker takes as many runs as the machine has slots, and machines come and go.
    template = ProcessWorker.get_default_base_job_template()
    with contextlib.suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _lost_automation() -> AutomationCore:
    """Return the automation that marks a FlowRL run as Crashed after three missed heartbeats: its process is gone."""
    silence = 3 * _HEARTBEAT_S
    return AutomationCore(
        name=_LOST,
        description="Its worker and its process, or their machine, are gone.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            # Only FlowRL's runs: a trigger for every run of a server caused ten times as many database lock errors.
            match_related=ResourceSpecification(
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{FLOWRL}"}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {silence} s")],
    )
