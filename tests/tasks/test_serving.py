import asyncio
import contextlib
import gc
import sqlite3
import threading
import time

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


def collect_a_failed_cursor(config, file):
    """Seconds for which the event loop collects garbage while a connection with a failed statement waits for a lock."""
    with sqlite3.connect(file) as setup:
        setup.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE numbers (n INTEGER UNIQUE); INSERT INTO numbers VALUES (1)"
        )

    async def insert(number, session):
        async with session, config.begin_transaction(session, with_for_update=True):
            await session.execute(sa.text(f"INSERT INTO numbers VALUES ({number})"))

    async def work():
        engine = await config.engine()
        with pytest.raises(sa.exc.IntegrityError):
            await insert(1, await config.session(engine))
        with contextlib.closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            threading.Timer(3, holder.rollback).start()
            waiting = asyncio.create_task(insert(2, await config.session(engine)))  # with the connection of before
            await asyncio.sleep(0.5)
            began = time.monotonic()
            gc.collect()
            seconds = time.monotonic() - began
            await waiting
        await engine.dispose()
        return seconds

    gc.collect()
    gc.disable()
    try:
        return asyncio.run(work())
    finally:
        gc.enable()


def test_garbage_of_a_failed_statement_never_makes_the_event_loop_wait_for_a_lock(tmp_path):
    file = tmp_path / "ours.sqlite"
    assert collect_a_failed_cursor(WritingFirst(connection_url=f"sqlite+aiosqlite:///{file}"), file) < 1


def test_that_of_prefects_own_does(tmp_path):
    """The reason for ours: once this fails, it can go."""
    file = tmp_path / "prefects.sqlite"
    assert collect_a_failed_cursor(AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{file}"), file) > 2


def test_the_server_that_is_started_is_ours(server):
    from flowrl_cli.server.record import Record

    assert "tasks.orchestration.server.serving:create_app" in Record.load(server.home).alive("server").cmdline()
