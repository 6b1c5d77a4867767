"""Wake up when flow runs change: one subscription to Prefect's event stream, with a slow clock as fallback."""

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
"""Maximum sleep between two checks of what is executing: covers lost events."""

TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_RECONNECT_S = 2.0


class RunWatcher:
    """Wakes its owner when a flow run with one of the tags reaches one of the states.

    An event only wakes: the state is read from the API afterwards, so lost and repeated events do no harm.
    """

    def __init__(self, tags: Sequence[str], *, states: Sequence[str] = TERMINAL) -> None:
        # By the type of the state: an event's name holds the state's own name, such as "NotLearned".
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
        """Make `changed` return after at most this many seconds."""
        asyncio.get_running_loop().call_later(seconds, self._wake.set)

    async def changed(self, timeout: float = RECONCILE_S) -> bool:
        """Return whether something may have happened since the last call, waiting for it up to `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        is_woken = self._wake.is_set()
        self._wake.clear()
        return is_woken

    async def _listen(self) -> None:
        while True:
            try:
                # By default the subscription gives up eight seconds after the server has gone.
                subscription = get_events_subscriber(
                    filter=self._filter.model_copy(deep=True), reconnection_attempts=60, reconnect_on_clean_close=True
                )
                async with subscription as events:
                    self._wake.set()  # for events before the connection
                    async for _ in events:
                        self._wake.set()
            except Exception as exc:
                logger.warning("event stream lost (%r); connecting again", exc)
                await asyncio.sleep(_RECONNECT_S)
