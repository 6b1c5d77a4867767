"""A hook for a cancelled campaign, called by the worker that ended its run's process: it cancels the skills' runs.

Without it, the running campaign or its next start would do the same later.
"""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.campaign.campaign_runs import live_campaign_runs
from tasks.orchestration.runs.approval import CAMPAIGN_CANCELLED
from tasks.orchestration.runs.submission import cancel_runs, read_runs
from tasks.orchestration.runs.tags import registry_tag
from tasks.skill.submission import live_skill_runs

__all__ = ["cancel_skills"]


async def cancel_skills(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Cancel the skills' runs of a cancelled campaign run, and record those that had not started.

    Prefect itself would cancel them, but checks for such runs only every forty seconds.
    """
    with Registry.open(Home.from_environment()) as registry:
        if registry_tag(registry.uuid) not in flow_run.tags:
            return
        name = str(flow_run.parameters["campaign"])
        async with get_client() as client:
            leading = await live_campaign_runs(client, registry.uuid, name)
            if any(run.id != flow_run.id for run in leading):
                return  # started again meanwhile: the live runs belong to the new start
            await cancel_runs(client, await live_skill_runs(client, registry.uuid, name))
            outstanding = [one for one in registry.attempts.outstanding(name) if one.flow_run_id]
            runs = await read_runs(client, [str(one.flow_run_id) for one in outstanding])
        for attempt in outstanding:
            run = runs.get(str(attempt.flow_run_id))
            if run is not None and run.state is not None and run.state.is_cancelled():
                registry.attempts.end(attempt.id, "cancelled", CAMPAIGN_CANCELLED)
