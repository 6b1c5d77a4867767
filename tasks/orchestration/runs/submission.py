"""Flow runs: submit under a key, run again, cancel, find."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.deployments import arun_deployment
from prefect.input import RunInput
from prefect.states import AwaitingRetry, Cancelled, Cancelling

from tasks.orchestration.runs.approval import CAMPAIGN_CANCELLED, held_state, offer
from tasks.orchestration.runs.tags import APPROVAL

__all__ = [
    "UNHEARD_S",
    "Submission",
    "age",
    "cancel_runs",
    "end_cancelled",
    "find_runs",
    "is_unheard",
    "read_runs",
    "run_again",
    "submit",
]

UNHEARD_S = 60.0
"""Seconds after a request to end when a run's process is certainly gone: its worker kills it after half that time."""

_LIVE = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)


@dataclass(frozen=True)
class Submission:
    """The flow run that a family wants.

    Attributes:
        deployment: as `flow/deployment`.
        flow_run_name: the run's name in the UI.
        parameters: the flow's parameters, JSON-ready.
        tags: tags for finding the run again, see `tags`.
        key: identifies the run permanently: submitting it again returns the same run in whatever state it is.
        held: the form for a person's approval, for which a new run waits; None to start at once.
    """

    deployment: str
    flow_run_name: str
    parameters: Mapping[str, Any]
    tags: Sequence[str]
    key: str
    held: type[RunInput] | None = None


async def submit(client: PrefectClient, wanted: Submission) -> FlowRun:
    """Return the flow run of this key: new the first time, then always the same one, in whatever state it is.

    A run that is submitted inside a flow and not held is linked to that flow run.
    """
    if wanted.held is None:
        return await arun_deployment(
            wanted.deployment,
            client=client,
            flow_run_name=wanted.flow_run_name,
            parameters=dict(wanted.parameters),
            tags=wanted.tags,
            idempotency_key=wanted.key,
            timeout=0,
        )
    deployment = await client.read_deployment_by_name(wanted.deployment)
    run = await client.create_flow_run_from_deployment(
        deployment.id,
        name=wanted.flow_run_name,
        parameters=dict(wanted.parameters),
        tags=[*wanted.tags, APPROVAL],
        idempotency_key=wanted.key,
        state=held_state(),
    )
    await offer(run, wanted.held)
    return run


async def run_again(client: PrefectClient, run: FlowRun, *, delay: float) -> bool:
    """Schedule the same Prefect run again in `delay` seconds; return False if the server refuses."""
    at = datetime.now(UTC) + timedelta(seconds=delay)
    answer: OrchestrationResult[Any] = await client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=at))
    return answer.status == SetStateStatus.ACCEPT


async def read_runs(client: PrefectClient, ids: Collection[str]) -> dict[str, FlowRun]:
    """Return the flow runs with these ids, by id, without those unknown to the server."""
    if not ids:
        return {}
    found = await _read(client, {"id": {"any_": [UUID(one) for one in ids]}})
    return {str(run.id): run for run in found}


async def find_runs(
    client: PrefectClient,
    tags: Sequence[str],
    *,
    flow: str | None = None,
    only_live: bool = False,
    states: Sequence[str] = (),
) -> list[FlowRun]:
    """Return the runs of a flow, or of all flows, that have all these tags.

    Args:
        only_live: leave out runs in a final state.
        states: only runs in a state of one of these types; empty for any.
    """
    types = list(states or (_LIVE if only_live else ()))
    wanted: dict[str, Any] = {"state": {"type": {"any_": types}}} if types else {}
    return await _read(client, {"tags": {"all_": list(tags)}, **wanted}, flow)


async def cancel_runs(client: PrefectClient, runs: Iterable[FlowRun]) -> None:
    """Ask these runs to end, unless already asked; a run that has not started ends at once."""
    for run in runs:
        if run.state is not None and (run.state.is_paused() or run.state.is_scheduled()):
            # It has no process: cancelling would wait for that of an earlier attempt. The message distinguishes it from
            # a run that a person rejected.
            await client.set_flow_run_state(run.id, Cancelled(message=CAMPAIGN_CANCELLED))
        elif run.state is None or not run.state.is_cancelling():
            await client.set_flow_run_state(run.id, Cancelling(message=CAMPAIGN_CANCELLED))


async def end_cancelled(client: PrefectClient, runs: Iterable[FlowRun]) -> None:
    """Mark runs that were asked to end long ago as cancelled: no worker watches them any more."""
    for run in runs:
        if run.state is not None and run.state.is_cancelling():
            await client.set_flow_run_state(run.id, Cancelled(message="nobody answered the cancellation"), force=True)


def is_unheard(run: FlowRun, seconds: float = UNHEARD_S) -> bool:
    """Whether the run was asked to end so long ago that its process must be gone, if there was one."""
    # Future times count too: a clock that was set back would otherwise prolong this wait.
    return run.state is not None and run.state.is_cancelling() and abs(age(run.state)) > seconds


def age(state: State) -> float:
    """Return the seconds since the run entered the state, by this machine's clock."""
    return (datetime.now(UTC) - state.timestamp).total_seconds()


async def _read(client: PrefectClient, runs: dict[str, Any], flow: str | None = None) -> list[FlowRun]:
    of_flow = FlowFilter.model_validate({"name": {"any_": [flow]}}) if flow else None
    found: list[FlowRun] = []
    while True:
        # The server decides on the page size: it refuses a greater limit than its own.
        page = await client.read_flow_runs(
            flow_filter=of_flow, flow_run_filter=FlowRunFilter.model_validate(runs), offset=len(found)
        )
        found += page
        if not page:
            return found
