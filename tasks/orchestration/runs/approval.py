"""A person's approval of a run: it is made `Suspended`, and waits in the Prefect UI.

Resume approves it, with changes or without; Cancel rejects it. A run that waits holds no slot and blocks nobody.
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
    """The state of a run that waits for approval, for as long as it takes."""
    state: State = Suspended(pause_key=APPROVAL, message="waits for approval: Resume approves, Cancel rejects")
    state.state_details.run_input_keyset = {str(kind): key for kind, key in keyset_from_paused_state(state).items()}
    return state


async def offer(run: FlowRun, form: type[RunInput]) -> None:
    """Give a held run the form that the UI shows on Resume; again changes nothing."""
    try:
        await form.asave(keyset_from_paused_state(held_state()), run.id)
    except PrefectHTTPStatusError as exc:
        if exc.response.status_code != httpx.codes.CONFLICT:
            raise


def given_changes() -> dict[str, Any]:
    """What a person has given in the form of the flow run that asks; empty if it was not held, or nothing was given."""
    if APPROVAL not in flow_run.tags:
        return {}
    found = read_flow_run_input(keyset_from_paused_state(held_state())["response"])
    return cast(dict[str, Any], found or {})  # a coroutine only for who calls it in one


def is_rejected(run: FlowRun) -> bool:
    """Whether a person cancelled a run that waited for approval; with its campaign is no verdict on it."""
    return (
        APPROVAL in run.tags
        and run.run_count == 0
        and run.state is not None
        and run.state.is_cancelled()
        and run.state.message != CAMPAIGN_CANCELLED
    )
