"""Prefect's server as FlowRL starts it: `uvicorn --factory tasks.orchestration.server.serving:create_app`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from flowrl_core.signals import restore
from tasks.orchestration.server import lasting

__all__ = ["WritingFirst", "create_app"]


class WritingFirst(AioSqliteConfiguration):
    """An SQLite database whose transactions take the write lock at their start, and wait for it.

    Some of Prefect's transactions (3.8.8: workers' heartbeats, the counters of automations) read before they write.
    SQLite refuses the write at once, as "database is locked", if another connection has written in between.
    """

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Yield a transaction of the session."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def create_app() -> FastAPI:
    """Return the server's application, for the database that Prefect's settings name."""
    restore()
    lasting.last()
    url = get_current_settings().server.database.connection_url
    assert url is not None  # Prefect's default is a file in its home
    if get_dialect(url.get_secret_value()).name == "sqlite":
        set_database_config(WritingFirst(connection_url=url.get_secret_value()))
    from prefect.server.api.server import create_app as prefects  # accesses the database on import

    return prefects()
