"""Cancellation of a run that works for an attempt: the run ends, and the registry records it at once.

Without this, the submitter would record the same later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import TerminationSignal
from prefect.flows import Flow
from prefect.runtime import flow_run as this_run

from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.orchestration.runs.tags import registry_tag

__all__ = ["RunCancelled", "check_begun", "heeding_cancellation", "note_cancellation"]

_POLL_S = 3.0


def note_cancellation(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Record in the registry that a cancelled run's attempt is over: a hook of flows with a parameter `attempt`.

    The worker that ended the run's process calls it.
    """
    with Registry.open(Home.from_environment()) as registry:
        if registry_tag(registry.uuid) in flow_run.tags:
            registry.attempts.end(int(flow_run.parameters["attempt"]), "cancelled", "its run was cancelled")


class RunCancelled(Exception):
    """This process's run was cancelled, and its work, if any, has ended at a safe point."""


def check_begun(states: Iterable[State]) -> None:
    """Check that a run with these states was not cancelled before it began.

    Prefect (3.8.8) starts a run that was cancelled after a worker had taken it, and calls it Running.

    Raises:
        RunCancelled: the run was cancelled.
    """
    types = [state.type for state in sorted(states, key=lambda state: state.timestamp)]
    if tuple(types[-2:]) == (StateType.CANCELLED, StateType.RUNNING):
        raise RunCancelled("cancelled before it started")


@contextlib.contextmanager
def heeding_cancellation(attempt: int) -> Iterator[None]:
    """End the block if its run is cancelled and no worker ends the process; then record this in the registry.

    The worker may be dead, or unaware: a Prefect 3.8.8 worker stops asking for cancellations once the server was away
    for a minute.

    Raises:
        RunCancelled: the block was ended this way, or did not begin.
    """
    run, over, told = this_run.id, threading.Event(), threading.Event()

    def watch(run: UUID) -> None:
        if _was_cancelled(run, over):
            told.set()
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        if run:
            with get_client(sync_client=True) as client:
                check_begun(client.read_flow_run_states(UUID(run)))
            threading.Thread(target=watch, args=[UUID(run)], name="cancellation", daemon=True).start()
        try:
            yield
        except TerminationSignal as exc:
            if told.is_set():
                raise RunCancelled("cancelled") from exc
            raise
    except RunCancelled as exc:
        with Registry.open(Home.from_environment()) as registry:
            registry.attempts.end(attempt, "cancelled", str(exc))
        raise
    finally:
        over.set()


def _was_cancelled(run: UUID, over: threading.Event) -> bool:
    """Wait until the run is cancelled in two polls in a row, which gives its worker time to end it; False if over."""
    before = False
    with get_client(sync_client=True) as client:
        while not over.wait(_POLL_S):
            with contextlib.suppress(Exception):  # the server may be away: asked again
                state = client.read_flow_run(run).state
                now = state is not None and (state.is_cancelling() or state.is_cancelled())
                if now and before:
                    return True
                before = now
    return False
