"""What follows from a cancellation at once: hooks of the flows, called by the worker that ended a run's process.

A campaign that goes on, or its next start, would settle the same later.
"""

from __future__ import annotations

import logging
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.orchestration.submission import cancel_runs, find_runs, read_runs
from tasks.orchestration.tags import campaign_tags, registry_tag

__all__ = ["cancel_skills", "note_cancellation"]

logger = logging.getLogger(__name__)


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
            await cancel_runs(client, await find_runs(client, tags, flow="train-skill", only_live=True))
            outstanding = [one for one in registry.outstanding(name) if one.flow_run_id]
            runs = await read_runs(client, [str(one.flow_run_id) for one in outstanding])
        for attempt in outstanding:
            run = runs.get(str(attempt.flow_run_id))
            if run is not None and run.state is not None and run.state.is_cancelled():
                registry.end_attempt(attempt.id, "cancelled", "its campaign was cancelled")


def note_cancellation(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Note in the registry that the attempt of a cancelled run is over."""
    with Registry.open(Home.from_environment()) as registry:
        if registry_tag(registry.uuid) in flow_run.tags:
            registry.end_attempt(int(flow_run.parameters["attempt"]), "cancelled", state.message or "cancelled")
