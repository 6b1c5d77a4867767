"""Prefect's server as FlowRL starts it: `uvicorn --factory tasks.orchestration.server.serving:create_app`."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, AsyncSessionTransaction

from flowrl_core.signals import restore
from tasks.orchestration.server import lasting

__all__ = ["WritingFirst", "create_app"]


class _ClosingCursor(sqlite3.Cursor):
    """A cursor that is closed where its statement fails, for example because a name is taken.

    SQLAlchemy (2.0.58) leaves such a cursor to the garbage collector, which resets its statement in the thread of the
    event loop. If the connection waits for the write lock at that moment, for up to a minute, so does the event loop,
    and with it the transaction that has the lock.
    """

    def execute(self, *arguments: Any) -> _ClosingCursor:
        """Execute a statement, as `sqlite3.Cursor` does."""
        try:
            return super().execute(*arguments)
        except sqlite3.Error:
            self.close()
            raise

    def executemany(self, *arguments: Any) -> _ClosingCursor:
        """Execute a statement for each set of parameters, as `sqlite3.Cursor` does."""
        try:
            return super().executemany(*arguments)
        except sqlite3.Error:
            self.close()
            raise


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _ClosingCursor) -> Any:
        """Return a new cursor."""
        return super().cursor(factory)


def _use_closing_cursors(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
    options["factory"] = _Connection


class WritingFirst(AioSqliteConfiguration):
    """An SQLite database whose transactions take the write lock at their start, and wait for it.

    Some of Prefect's transactions (3.8.8: workers' heartbeats, the counters of automations) read before they write.
    SQLite refuses the write at once, as "database is locked", if another connection has written in between.
    """

    async def engine(self) -> AsyncEngine:
        """Return the engine of this database in the running event loop."""
        engine = await super().engine()
        if not sa.event.contains(engine.sync_engine, "do_connect", _use_closing_cursors):
            sa.event.listen(engine.sync_engine, "do_connect", _use_closing_cursors)
        return engine

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
