"""The parts of FlowRL on a Prefect server: pools, workers that are online, deployments, automations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.orchestration.runs.tags import FLOWRL
from tasks.orchestration.server.bootstrap import POOLS
from tasks.orchestration.server.deployments import document, flow_of, form_of

__all__ = ["Inventory", "await_workers", "missing_pools", "take_inventory", "unattended_pools"]

_POLL_S = 0.25


@dataclass(frozen=True)
class Inventory:
    """The parts of FlowRL that a server has and lacks.

    Attributes:
        workers: pool -> names of its workers that are online; None for a missing pool.
        deployments: name -> whether it matches this FlowRL's version; None for a missing deployment.
        queues: pool -> names of its queues, the first to be served first.
        automations: names of FlowRL's automations.
    """

    workers: Mapping[str, tuple[str, ...] | None]
    deployments: Mapping[str, bool | None]
    queues: Mapping[str, tuple[str, ...]]
    automations: tuple[str, ...]


def take_inventory() -> Inventory:
    """Return the inventory of the server of Prefect's settings."""

    async def work() -> Inventory:
        async with get_client() as client:
            return Inventory(
                {pool: await _workers(client, pool) for pool in POOLS},
                {name: await _is_current(client, name, wanted) for name, wanted in _expected()},
                {pool: await _queues(client, pool) for pool in POOLS},
                tuple(one.name for one in await client.read_automations() if one.name.startswith(FLOWRL)),
            )

    return asyncio.run(work())


def missing_pools(pools: Collection[str]) -> list[str]:
    """Return those of the pools that the server does not have."""

    async def work() -> list[str]:
        async with get_client() as client:
            return [pool for pool in pools if await _workers(client, pool) is None]

    return asyncio.run(work())


def unattended_pools() -> list[str]:
    """Return the existing pools without an online worker."""

    async def work() -> list[str]:
        async with get_client() as client:
            return [pool for pool in POOLS if await _workers(client, pool) == ()]

    return asyncio.run(work())


def await_workers(
    pools: Collection[str], pid: int, *, seconds: float, lives: Callable[[], bool] = lambda: True
) -> tuple[str, ...]:
    """Return the names of the workers of process `pid`, once there is one online for each pool.

    After `seconds`, or once the process is dead, return those that are online.
    """

    async def work() -> tuple[str, ...]:
        deadline = time.monotonic() + seconds
        async with get_client() as client:
            while True:
                online = [name for pool in pools for name in await _workers(client, pool) or () if _is_of(name, pid)]
                if len(online) >= len(pools) or time.monotonic() > deadline or not lives():
                    return tuple(online)
                await asyncio.sleep(_POLL_S)

    return asyncio.run(work())


def _is_of(worker: str, pid: int) -> bool:
    return worker.endswith(f":{pid}")


async def _workers(client: PrefectClient, pool: str) -> tuple[str, ...] | None:
    try:
        found = await client.read_workers_for_work_pool(pool)
    except PrefectHTTPStatusError as exc:  # the client has no error type for this case
        if exc.response.status_code == HTTPStatus.NOT_FOUND:
            return None
        raise
    return tuple(worker.name for worker in found if worker.status == WorkerStatus.ONLINE)


async def _queues(client: PrefectClient, pool: str) -> tuple[str, ...]:
    try:
        found = await client.read_work_queues(work_pool_name=pool)
    except ObjectNotFound:
        return ()
    return tuple(queue.name for queue in sorted(found, key=lambda queue: queue.priority or 0))


def _expected() -> list[tuple[str, Any]]:
    """Return each deployment's name, and its entry point, pull steps, form and whether the form is enforced."""
    wanted = document()
    flows = [(entry, flow_of(entry)) for entry in wanted["deployments"]]
    return [
        (
            f"{flow.name}/{entry['name']}",
            (entry["entrypoint"], wanted["pull"], form_of(flow), entry.get("enforce_parameter_schema", True)),
        )
        for entry, flow in flows
    ]


async def _is_current(client: PrefectClient, name: str, wanted: Any) -> bool | None:
    try:
        found = await client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
    there = (found.entrypoint, found.pull_steps, found.parameter_openapi_schema, found.enforce_parameter_schema)
    return bool(there == wanted)
