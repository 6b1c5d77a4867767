"""The workers of the embedded Prefect: one process that serves both pools, `python -m tasks.orchestration.workers`.

It starts two seconds sooner than `prefect worker start`, whose command line has more to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

import anyio
import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

from tasks.orchestration.bootstrap import POOLS
from tasks.orchestration.events import RunWatcher
from tasks.orchestration.tags import FLOWRL

__all__ = ["serve"]

_POLL_S = 0.2


async def serve() -> None:
    """Serve the pools until SIGTERM or SIGINT; waits for each until somebody has made it."""
    me = asyncio.current_task()
    assert me is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    async with anyio.create_task_group() as group:
        for pool in POOLS:
            group.start_soon(_serve, pool)


async def _serve(pool: str) -> None:
    await _until_there(pool)
    settings = get_current_settings().worker
    worker = ProcessWorker(
        name=f"{pool}@{socket.gethostname()}:{os.getpid()}",
        work_pool_name=pool,
        # No limit of the worker's own: the pool has one, and a worker with a limit dies (Prefect 3.8.8) when a run that
        # crashed is scheduled again before the worker has forgotten its process.
        limit=None,
        prefetch_seconds=settings.prefetch_seconds,
        heartbeat_interval_seconds=int(settings.heartbeat_seconds),
        create_pool_if_not_found=False,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(_wake, worker)
        await worker.start(printer=lambda *text: None)


async def _wake(worker: ProcessWorker) -> None:
    """Have the worker look for runs when one was scheduled, without waiting for its clock.

    The clock goes on: it covers lost events. That both find the same run does no harm, the server lets it start once.
    The end of a run, which leaves its place to another, wakes nobody here: the campaign acts on it at that very moment,
    and on SQLite who looks for runs writes, too.
    """
    async with RunWatcher([FLOWRL], states=("SCHEDULED",)) as watcher:
        while True:
            if await watcher.changed() and worker.is_setup:
                with contextlib.suppress(httpx.HTTPError, PrefectHTTPStatusError):
                    await worker.get_and_submit_flow_runs()


async def _until_there(pool: str) -> None:
    # Not by Prefect's client: it waits longer and longer between its tries to reach a server that is still starting.
    url = f"{get_current_settings().api.url}/work_pools/{pool}"
    async with httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(_POLL_S)


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(serve())
