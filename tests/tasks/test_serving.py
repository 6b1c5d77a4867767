import asyncio
import sqlite3

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration

from tasks.orchestration.server.serving import WritingFirst


def read_then_write(config, file):
    """Whether another could write between the read and the write of a transaction of Prefect's, which then goes on."""
    with sqlite3.connect(file) as setup:
        setup.executescript("PRAGMA journal_mode=WAL; CREATE TABLE numbers (n INTEGER)")

    async def work():
        engine = await config.engine()
        async with await config.session(engine) as session, config.begin_transaction(session):
            await session.execute(sa.text("SELECT count(*) FROM numbers"))
            try:
                with sqlite3.connect(file, timeout=0.1) as other:
                    other.execute("INSERT INTO numbers VALUES (1)")
                    came_between = True
            except sqlite3.OperationalError:
                came_between = False
            await session.execute(sa.text("INSERT INTO numbers VALUES (2)"))
        await engine.dispose()
        return came_between

    return asyncio.run(work())


def test_a_transaction_that_reads_first_holds_the_lock_that_it_needs_to_write(tmp_path):
    file = tmp_path / "ours.sqlite"
    assert not read_then_write(WritingFirst(connection_url=f"sqlite+aiosqlite:///{file}"), file)
    with sqlite3.connect(file) as check:
        assert check.execute("SELECT n FROM numbers").fetchall() == [(2,)]


def test_prefects_own_is_refused(tmp_path):
    """The reason for ours: once this fails, it can go."""
    file = tmp_path / "prefects.sqlite"
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        read_then_write(AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{file}"), file)


def test_the_server_that_is_started_is_ours(server):
    from flowrl_cli.server.record import Record

    assert "tasks.orchestration.server.serving:create_app" in Record.load(server.home).alive("server").cmdline()
