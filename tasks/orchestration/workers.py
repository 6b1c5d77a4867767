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
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

from tasks.orchestration.bootstrap import POOLS

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
    await worker.start(printer=lambda *text: None)


async def _until_there(pool: str) -> None:
    # Not by Prefect's client: it waits longer and longer between its tries to reach a server that is still starting.
    api = get_current_settings().api
    url = f"{api.url}/work_pools/{pool}"
    user, _, password = (api.auth_string.get_secret_value() if api.auth_string else "").partition(":")
    async with httpx.AsyncClient(auth=(user, password) if user else None) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(_POLL_S)


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(serve())
