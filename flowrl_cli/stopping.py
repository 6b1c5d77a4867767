"""Stop a campaign that is being followed: its runs save checkpoints, started processes end, and all is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable

from flowrl_cli.process.signals import Interrupted, deferred
from flowrl_cli.server import embedded
from flowrl_cli.server.connection import connected
from flowrl_cli.server.launch import SERVER
from flowrl_cli.server.record import Record, Server
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

__all__ = ["stop_campaign"]

_POLL_S = 0.2
_AGAIN = "Run the same command again to"


def stop_campaign(
    home: Home, registry: Registry, campaign: str, server: Server | None, asked: Interrupted, *, submitted: bool
) -> int:
    """Stop what this command has started, or only detach if others need it; return the exit code.

    After a second request Prefect is skipped: the processes are asked to end directly, and still save checkpoints.
    After a third they are killed.

    Args:
        server: the server that the campaign runs on; None: it was not up yet.
        submitted: whether the campaign's run may have been submitted.
    """
    # Processes that die before this one, as when a supervisor asks all of them at once, are not worth a warning.
    logging.disable(logging.WARNING)
    with deferred() as again:
        if server is not None and not server.is_embedded:
            _say(_detached(campaign) if submitted else _nothing(asked))
            return asked.code
        if embedded.is_needed_by_others(home):
            if not submitted:
                embedded.leave(home, is_urgent=again)
                _say(f"{_nothing(asked)}; the server keeps running (`flowrl down` stops it)")
                return asked.code
            if embedded.detach(home, campaign, is_urgent=again):
                _say(_detached(campaign))
                return asked.code
        if submitted and server is not None:
            _say(f"Stopping ({asked.name}): runs save a checkpoint (interrupt again to stop at once) ...")
            # If Prefect fails at it, the processes are asked to end next.
            with contextlib.suppress(Exception), connected(server):
                asyncio.run(_cancel(home, registry.uuid, campaign, lambda: again() > 0))
        if embedded.leave(home, is_urgent=lambda: again() > 1):
            _end_attempts(registry, campaign, asked)
        _say(f"Stopped. {_AGAIN} resume" if submitted else _nothing(asked))
        return asked.code


async def _cancel(home: Home, registry: str, campaign: str, is_urgent: Callable[[], bool]) -> None:
    """Cancel the campaign and its skills' runs, until that is done, urgent, or the server is gone."""
    # Prefect takes two seconds to import.
    from tasks.campaign.campaign_runs import cancel_campaign

    work = asyncio.create_task(cancel_campaign(registry, campaign))
    while not work.done() and not is_urgent() and _is_up(home):
        await asyncio.wait([work], timeout=_POLL_S)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


def _is_up(home: Home) -> bool:
    record = Record.load(home)
    return record is not None and record.alive(SERVER) is not None


def _end_attempts(registry: Registry, campaign: str, asked: Interrupted) -> None:
    """Record that outstanding attempts have ended: no worker is left to do it."""
    try:
        for attempt in registry.attempts.outstanding(campaign):
            registry.attempts.end(attempt.id, "cancelled", f"the campaign was {asked}")
    except Exception as exc:  # a full disk, for example: the next start detects it
        _say(f"not recorded in the registry: {exc}")


def _detached(campaign: str) -> str:
    return f"Detached: campaign {campaign} keeps running. {_AGAIN} attach"


def _nothing(asked: Interrupted) -> str:
    return f"Stopped by {asked.name} before anything was submitted"


def _say(text: str) -> None:
    """Print to a stream that still works: a closed terminal must not prevent the shutdown."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            print(text, file=stream, flush=True)
            return
