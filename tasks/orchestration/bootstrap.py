"""What a Prefect server needs for FlowRL: pools, the deployments of prefect.yaml, an end for runs that vanished."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Cancelled, Crashed
from prefect.workers.process import ProcessWorker

from tasks.orchestration.deployments import ensure_deployments
from tasks.orchestration.tags import FLOWRL, is_from_here

__all__ = ["POOLS", "bootstrap", "bootstrap_server", "declare_lost"]

POOLS = ("control", "gpu")

_HEARTBEAT_S = 30  # PREFECT_FLOWS_HEARTBEAT_FREQUENCY; Prefect takes no less
_LOST = "flowrl: a run without heartbeat has crashed"


def bootstrap_server(*, own: bool, alive: Collection[str] | None = None) -> None:
    """`bootstrap`, then `declare_lost` if `alive` is given, on the server that Prefect's settings name."""

    async def work() -> None:
        async with get_client() as client:
            await bootstrap(client, own=own)
            if alive is not None:
                await declare_lost(client, alive)

    asyncio.run(work())


async def bootstrap(client: PrefectClient, *, own: bool) -> None:
    """Bring pools, deployments and the automation to a server. Safe to repeat.

    Args:
        own: the server was started by this machine: what is there is brought up to date. On anybody else's server
            only what is missing is added.
    """
    for pool in POOLS:
        await _ensure_pool(client, pool)
    await ensure_deployments(client, own=own)
    if not await client.read_automations_by_name(_LOST):
        await client.create_automation(_lost_automation())


async def declare_lost(client: PrefectClient, alive: Collection[str]) -> None:
    """End the runs that are said to be executing here though no process of theirs lives: who watched them has died too.

    Those of other machines' workers are left alone: whether they live is not seen from here.
    """
    states: dict[str, Any] = {"type": {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}}
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"tags": {"all_": [FLOWRL]}, "state": states})
    )
    for run in found:
        worker = str(run.labels.get("prefect.worker.name", ""))
        if str(run.id) in alive or run.state is None or (worker and not is_from_here(worker)):
            continue
        message = "its process is gone"
        end: State[None] = Cancelled(message=message) if run.state.is_cancelling() else Crashed(message=message)
        await client.set_flow_run_state(run.id, end, force=True)


async def _ensure_pool(client: PrefectClient, name: str) -> None:
    # Without a limit: each machine's worker takes as many runs as the machine has slots, and machines come and go.
    template = ProcessWorker.get_default_base_job_template()
    with contextlib.suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _lost_automation() -> AutomationCore:
    """Crashed for a run of ours that has missed three heartbeats: its worker and its process are gone."""
    silence = 3 * _HEARTBEAT_S
    return AutomationCore(
        name=_LOST,
        description="Its worker and its process, or their machine, are gone.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            # Only ours: a trigger for every run of a server made its database lock errors ten times as many.
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
