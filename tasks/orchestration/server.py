"""The embedded Prefect server: uvicorn, with SQLite transactions that do not fail where they could wait.

    python -m tasks.orchestration.server [options of uvicorn]

Prefect 3.8.8 begins most of its transactions DEFERRED. One that reads first and then writes fails at once ("database
is locked") if somebody else has written in between, whatever the time-out: heartbeats of workers and the counters of
automations were lost so, the more the busier the machine. IMMEDIATE ones wait for each other.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["begin_immediately"]

_begin = AioSqliteConfiguration.begin_transaction


def begin_immediately(
    configuration: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = True
) -> AbstractAsyncContextManager[Any]:
    """A transaction that has the database's write lock from its start."""
    return _begin(configuration, session, with_for_update=True)


if __name__ == "__main__":
    AioSqliteConfiguration.begin_transaction = begin_immediately  # type: ignore[assignment]
    uvicorn.main()
