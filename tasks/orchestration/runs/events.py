"""Waking up when flow runs change: one subscription to Prefect's event stream and a slow clock as the safety net."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventResourceFilter
from prefect.events.schemas.events import ResourceSpecification

__all__ = ["RECONCILE_S", "TERMINAL", "RunWatcher"]

logger = logging.getLogger(__name__)

RECONCILE_S = 60.0
"""Longest sleep between two looks at what is executing: covers lost events."""

TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_RECONNECT_S = 2.0


class RunWatcher:
    """Wakes its owner when a flow run with one of the tags reaches one of the states.

    An event only wakes: what happened is read from the API afterwards, so lost and repeated events do no harm.
    """

    def __init__(self, tags: Sequence[str], *, states: Sequence[str] = TERMINAL) -> None:
        # By the type of the state: an event's name carries the state's own name, "NotLearned" for example.
        self._filter = EventFilter(
            resource=EventResourceFilter(
                id_prefix=["prefect.flow-run."],
                labels=ResourceSpecification({"prefect.state-type": list(states)}),
            ),
            any_resource=EventAnyResourceFilter(id=[f"prefect.tag.{tag}" for tag in tags]),
        )
        self._wake = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def wake_in(self, seconds: float) -> None:
        """Let `changed` return after so many seconds at the latest."""
        asyncio.get_running_loop().call_later(seconds, self._wake.set)

    async def changed(self, timeout: float = RECONCILE_S) -> bool:
        """Whether something may have happened since the last call; waits for it up to `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        is_woken = self._wake.is_set()
        self._wake.clear()
        return is_woken

    async def _listen(self) -> None:
        while True:
            try:
                # With its default patience the subscription ends eight seconds after the server has gone.
                subscription = get_events_subscriber(
                    filter=self._filter.model_copy(deep=True), reconnection_attempts=60, reconnect_on_clean_close=True
                )
                async with subscription as events:
                    self._wake.set()  # for what happened before it was connected
                    async for _ in events:
                        self._wake.set()
            except Exception as exc:
                logger.warning("event stream lost (%r); connecting again", exc)
                await asyncio.sleep(_RECONNECT_S)
