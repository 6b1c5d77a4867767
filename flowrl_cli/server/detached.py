"""Campaigns that continue without the command that followed them: the embedded Prefect stays up for them."""

from __future__ import annotations

import asyncio

from flowrl_cli.request.inputs import registry_uuid
from flowrl_cli.server.connection import connected
from flowrl_cli.server.launch import SERVER
from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home

__all__ = ["still_running"]

_ANSWER_S = 15.0


def still_running(home: Home, record: Record) -> tuple[str, ...]:
    """Return the record's detached campaigns whose runs have not ended; all of them if the live server cannot say."""
    if not record.detached or record.alive(SERVER) is None:
        return ()
    # Prefect takes two seconds to import.
    from httpx import HTTPError

    from tasks.campaign.campaign_runs import live_campaigns

    registry = registry_uuid(home)
    if registry is None:
        return record.detached

    async def ask() -> list[str]:
        return await asyncio.wait_for(live_campaigns(registry, record.detached), _ANSWER_S)

    try:
        with connected(record.server):
            return tuple(asyncio.run(ask()))
    except (HTTPError, TimeoutError):
        return record.detached
