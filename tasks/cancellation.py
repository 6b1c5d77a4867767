"""What follows from a cancellation at once: hooks of the flows, called by the worker that ended a run's process.

A campaign that goes on, or its next start, would settle the same later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelled

from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.orchestration.approval import CAMPAIGN_CANCELLED
from tasks.orchestration.submission import cancel_runs, find_runs, read_runs
from tasks.orchestration.tags import campaign_tags, registry_tag

__all__ = ["cancel_skills", "heeding_cancellation", "note_cancellation"]

logger = logging.getLogger(__name__)

_POLL_S = 3.0


async def cancel_skills(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Cancel the skills' runs of a campaign's run that was cancelled, and note those that had not started.

    Prefect itself would cancel them, but looks for such runs only every forty seconds.
    """
    with Registry.open(Home.from_environment()) as registry:
        if registry_tag(registry.uuid) not in flow_run.tags:
            return
        name = str(flow_run.parameters["campaign"])
        async with get_client() as client:
            tags = campaign_tags(registry.uuid, name)
            leading = await find_runs(client, tags, flow="campaign", only_live=True)
            if any(run.id != flow_run.id for run in leading):
                return  # started again meanwhile: the runs that live are the new start's
            await cancel_runs(client, await find_runs(client, tags, flow="train-skill", only_live=True))
            outstanding = [one for one in registry.outstanding(name) if one.flow_run_id]
            runs = await read_runs(client, [str(one.flow_run_id) for one in outstanding])
        for attempt in outstanding:
            run = runs.get(str(attempt.flow_run_id))
            if run is not None and run.state is not None and run.state.is_cancelled():
                registry.end_attempt(attempt.id, "cancelled", CAMPAIGN_CANCELLED)


def note_cancellation(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Note in the registry that the attempt of a cancelled run is over."""
    with Registry.open(Home.from_environment()) as registry:
        if registry_tag(registry.uuid) in flow_run.tags:
            registry.end_attempt(int(flow_run.parameters["attempt"]), "cancelled", state.message or "cancelled")


@contextlib.contextmanager
def heeding_cancellation(attempt: int) -> Iterator[None]:
    """Within the block this process ends by itself if its run is cancelled and its worker, who would end it, is dead.

    While the worker lives this costs nothing: only an orphan asks the server.
    """
    run = this_run.id
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_S):
            if os.getppid() == parent:
                continue
            with contextlib.suppress(Exception):  # the server may be away: asked again
                if run and _end_if_cancelled(UUID(run), attempt):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    threading.Thread(target=watch, name="orphan", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _end_if_cancelled(run: UUID, attempt: int) -> bool:
    """Whether the run was cancelled; then this is noted where its worker would have noted it."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is None or not (state.is_cancelling() or state.is_cancelled()):
            return False
        logger.info("the run was cancelled, and its worker is gone: the process ends by itself")
        with Registry.open(Home.from_environment()) as registry:
            registry.end_attempt(attempt, "cancelled", state.message or "cancelled")
        if state.is_cancelling():
            client.set_flow_run_state(run, Cancelled(message=state.message), force=True)
    return True
