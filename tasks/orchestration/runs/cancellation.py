"""What follows from the cancellation of a run that works for an attempt: it ends, and the registry knows at once.

Whoever submitted it would settle the same later.
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
    """Note in the registry that the attempt of a cancelled run is over: a hook of flows with a parameter `attempt`.

    It is called by the worker that ended the run's process.
    """
    with Registry.open(Home.from_environment()) as registry:
        if registry_tag(registry.uuid) in flow_run.tags:
            registry.attempts.end(int(flow_run.parameters["attempt"]), "cancelled", "its run was cancelled")


class RunCancelled(Exception):
    """The run of this process was cancelled, and what was under way, if anything, has ended at a safe point."""


def check_begun(states: Iterable[State]) -> None:
    """Nothing, if a run of these states was not cancelled before it began to run.

    Prefect (3.8.8) starts one that was cancelled after a worker had taken it, and calls it Running then.

    Raises:
        RunCancelled: it was.
    """
    types = [state.type for state in sorted(states, key=lambda state: state.timestamp)]
    if tuple(types[-2:]) == (StateType.CANCELLED, StateType.RUNNING):
        raise RunCancelled("cancelled before it started")


@contextlib.contextmanager
def heeding_cancellation(attempt: int) -> Iterator[None]:
    """End the block if its run is cancelled and nobody else ends its process; this is noted in the registry then.

    Its worker may be dead, or deaf: that of Prefect 3.8.8 no longer asks for the cancellation of a run once the server
    was away for a minute.

    Raises:
        RunCancelled: the block was ended so, or not begun.
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
    """Wait until the run was found cancelled twice, so that a worker that hears it has ended it; False: it is over."""
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
