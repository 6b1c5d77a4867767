"""What wakes a worker, against a real server; the worker itself is a stand-in that only counts."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Scheduled

from tasks.orchestration import workers
from tasks.orchestration.tags import FLOWRL


@flow
def nothing() -> None: ...


class Counting:
    """As much of a worker as waking it needs."""

    is_setup = True

    def __init__(self) -> None:
        self.looked = asyncio.Event()

    async def get_and_submit_flow_runs(self) -> None:
        self.looked.set()


async def looked_after(worker, tags):
    """Whether the worker looks when a run with these tags is scheduled, far away so that nobody starts it."""
    worker.looked.clear()
    async with get_client() as client:
        later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
        run = await client.create_flow_run(nothing, tags=tags, state=later)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.looked.wait(), 30 if FLOWRL in tags else 2)
            return worker.looked.is_set()
        finally:
            await client.delete_flow_run(run.id)


def test_a_worker_looks_for_runs_when_one_of_ours_is_scheduled(server):
    async def work():
        worker = Counting()
        waking = asyncio.create_task(workers._wake(worker))
        try:
            await asyncio.wait_for(worker.looked.wait(), 60)  # once, when it is connected
            return await looked_after(worker, [FLOWRL]), await looked_after(worker, ["somebody-elses"])
        finally:
            waking.cancel()
            await asyncio.gather(waking, return_exceptions=True)

    ours, others = asyncio.run(work())
    assert ours and not others
