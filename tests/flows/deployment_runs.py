"""Runs of deployments on the server of the tests: started, waited for, looked up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.objects import FlowRun, State

T = TypeVar("T")

PATIENCE_S = 120


def on_server(work: Callable[[PrefectClient], Awaitable[T]]) -> T:
    """What `await work(client)` returns."""

    async def call() -> T:
        async with get_client() as client:
            return await work(client)

    return asyncio.run(call())


def start(name: str, **parameters: Any) -> UUID:
    """A new run of a deployment: its id."""

    async def create(client: PrefectClient) -> UUID:
        deployment = await client.read_deployment_by_name(name)
        return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id

    return on_server(create)


def end_of(run: UUID) -> State[Any]:
    """The state in which a run ends."""

    async def wait(client: PrefectClient) -> State[Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not ((state := (await client.read_flow_run(run)).state) and state.is_final()):
            assert time.monotonic() < deadline, f"run {run} is still {state}"
            await asyncio.sleep(0.2)
        return state

    return on_server(wait)


async def runs_of(client: PrefectClient, deployment: str) -> list[FlowRun]:
    """All runs of a deployment."""
    id = (await client.read_deployment_by_name(deployment)).id
    wanted = DeploymentFilter.model_validate({"id": {"any_": [id]}})
    return await client.read_flow_runs(deployment_filter=wanted)
