"""A person's approval of a run: the run is created `Suspended` and waits in the Prefect UI.

Resume approves it, with or without changes; Cancel rejects it. A waiting run holds no slot and blocks no other run.
"""

from __future__ import annotations

from typing import Any, cast

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.input import RunInput
from prefect.input.actions import read_flow_run_input
from prefect.input.run_input import keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Suspended

from tasks.orchestration.runs.tags import APPROVAL

__all__ = ["CAMPAIGN_CANCELLED", "given_changes", "held_state", "is_rejected", "offer"]

CAMPAIGN_CANCELLED = "its campaign was cancelled"
"""The message of runs that were cancelled with their campaign."""


def held_state() -> State:
    """Return the state of a run that waits for approval indefinitely."""
    state: State = Suspended(pause_key=APPROVAL, message="waits for approval: Resume approves, Cancel rejects")
    state.state_details.run_input_keyset = {str(kind): key for kind, key in keyset_from_paused_state(state).items()}
    return state


async def offer(run: FlowRun, form: type[RunInput]) -> None:
    """Attach to a held run the form that the UI shows on Resume; repeating it changes nothing."""
    try:
        await form.asave(keyset_from_paused_state(held_state()), run.id)
    except PrefectHTTPStatusError as exc:
        if exc.response.status_code != httpx.codes.CONFLICT:
            raise


def given_changes() -> dict[str, Any]:
    """Return the form's answers for the current flow run; empty if it was not held or the form was left empty."""
    if APPROVAL not in flow_run.tags:
        return {}
    found = read_flow_run_input(keyset_from_paused_state(held_state())["response"])
    return cast(dict[str, Any], found or {})  # a coroutine only if called inside one


def is_rejected(run: FlowRun) -> bool:
    """Whether a person cancelled a run that waited for approval; cancellation with its campaign does not count."""
    return (
        APPROVAL in run.tags
        and run.run_count == 0
        and run.state is not None
        and run.state.is_cancelled()
        and run.state.message != CAMPAIGN_CANCELLED
    )
