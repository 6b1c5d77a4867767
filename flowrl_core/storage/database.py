"""The registry's database: connections, transactions and schema migration."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoResultFound, NoSuchModuleError

from flowrl_core.errors import ConflictError, CorruptError, InputError, StorageError
from flowrl_core.installation import data
from flowrl_core.storage.atomic import sync_directory, temporary_beside
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.schema import HEAD, meta

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["MIGRATIONS", "bring_up_to_date", "is_known", "make_engine", "reading", "revision", "writing"]

MIGRATIONS = data("storage", "migrations")
_DATABASES = ("sqlite", "postgresql")
_BUSY_SECONDS = 60
"""How long a writer waits for others: 64 merges from 8 processes at once take a few seconds on a busy machine."""
# libpq settings in seconds (the last in milliseconds): without them, waiting for a vanished server takes hours.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_RESTORE = "create a new home from a backup (`flowrl restore`)"
_LACKING = ("no such table", "no such column")
_MOST_WORDS = 200
_WRITE_LOCK = int.from_bytes(b"flowrl-w")


def make_engine(url: str, *, connect: Callable[[], sqlite3.Connection] | None = None) -> sa.Engine:
    """An engine for the URL; nothing is opened yet.

    Args:
        connect: makes each new connection, instead of making it from the URL.

    Raises:
        InputError: not a database URL, its driver is not installed, or the database or driver is not supported.
    """
    remedy = f"Set {URL_VARIABLE} to sqlite:////absolute/path or postgresql+psycopg://user@host/name, or leave it unset"
    try:
        parsed = sa.make_url(url)
        dialect = parsed.get_dialect()
        is_postgres = parsed.get_backend_name() == "postgresql"
        own = {"creator": connect, "poolclass": sa.NullPool} if connect else {}
        engine = sa.create_engine(parsed, **(_postgres_options(parsed) if is_postgres else own))
    except (ArgumentError, ValueError) as exc:
        raise InputError(URL_VARIABLE, f"{_without_password(url)!r} is not a database URL", remedy) from exc
    except (NoSuchModuleError, ImportError) as exc:
        name = parsed.drivername
        raise InputError(URL_VARIABLE, f"there is no database driver {name!r} here ({exc})", remedy) from exc
    if parsed.get_backend_name() not in _DATABASES or dialect.is_async:
        raise InputError(URL_VARIABLE, f"{parsed.drivername!r} is not a driver that the registry supports", remedy)
    _check_place(url, parsed, remedy)
    if not is_postgres:
        sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin_postgres if is_postgres else _on_begin)
    return engine


def _postgres_options(url: sa.URL) -> dict[str, Any]:
    # A pooled connection may have been cut off since its last use: by a restart of the server, for example.
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    return {"pool_pre_ping": True, "connect_args": patience}


def _check_place(url: str, parsed: sa.URL, remedy: str) -> None:
    if "@" in (parsed.host or ""):
        raise InputError(URL_VARIABLE, f"{_without_password(url)!r} has an @ in its password", "Write it as %40")
    if parsed.get_backend_name() == "sqlite" and not parsed.database:
        raise InputError(URL_VARIABLE, f"{url!r} does not name a file", remedy)
    if url == os.environ.get(URL_VARIABLE) and parsed.get_backend_name() == "sqlite":
        directory = Path(str(parsed.database)).absolute().parent
        if not directory.is_dir():
            raise InputError(
                URL_VARIABLE, f"{url!r} is in {directory}, which is not a directory", "Create or correct it"
            )


def _without_password(url: str) -> str:
    """A text that is not a valid URL, with everything that may be a password masked."""
    start, at, rest = url.rpartition("@")
    return f"{start.partition(':')[0]}:***@{rest}" if at else url


def _on_connect(connection: Any, _: Any) -> None:
    # The driver's own BEGIN comes too late, after the first read; with None, `_on_begin` begins the transaction.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_SECONDS * 1000}", "foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("flowrl_migrate", False):
        # SQLite changes a table by creating a new one, and refuses to drop the old one while rows refer to it.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    # Under WAL, a transaction that reads and then writes fails at once if another one wrote in between.
    is_write = options.get("flowrl_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _on_begin_postgres(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get("flowrl_write", False):
        # All statements of a read see the state that the first one saw.
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return
    # As on SQLite, only one writer runs at a time. A transaction's decisions depend on rows that it only reads (the
    # greatest ordinal, the heads), which row locks do not cover. Each statement sees everything committed before the
    # lock was granted; at a higher isolation level, which may be the database's default, all statements would see the
    # state from before the wait.
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_BUSY_SECONDS}s'")
    # The same limit on waiting for the lock of a vanished machine or a stopped process.
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_BUSY_SECONDS}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")


@contextlib.contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A read transaction that sees one consistent state of the database."""
    with _named_errors(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that holds the write lock from its start and commits at the end of the block."""
    with _named_errors(engine), engine.connect() as plain:
        connection = plain.execution_options(flowrl_write=True)
        with connection.begin():
            yield connection


@contextlib.contextmanager
def _migrating(engine: sa.Engine) -> Iterator[sa.Connection]:
    """`writing` on a connection of its own; on SQLite, references between rows are checked once, at the end."""
    with _named_errors(engine), engine.connect() as plain:
        connection = plain.execution_options(flowrl_write=True, flowrl_migrate=True)
        connection.detach()
        with connection.begin():
            yield connection
            if engine.dialect.name == "sqlite":
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if broken is not None:
                    raise CorruptError(f"a row of {broken[0]} refers to a missing row of {broken[2]}")


@contextlib.contextmanager
def _named_errors(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise ConflictError(f"{_called(engine)} refused a row that conflicts with others: {exc.orig}") from exc
    except DBAPIError as exc:
        is_whole = not isinstance(exc.orig, sqlite3.DatabaseError) or isinstance(exc.orig, sqlite3.OperationalError)
        if not is_whole or str(exc.orig).startswith(_LACKING):
            raise CorruptError(f"{_called(engine)}: {exc.orig}; {_RESTORE}") from exc
        if "locked" in str(exc.orig):
            raise StorageError(
                f"{_called(engine)}: another process has held it for {_BUSY_SECONDS} s; nothing was changed, try again "
                f"once it has ended (`fuser {engine.url.database}` names it)"
            ) from exc
        raise StorageError(
            f"{_called(engine)}: {exc.orig}; nothing was changed, try again once this is repaired"
        ) from exc
    except (NoResultFound, ValueError, TypeError, KeyError) as exc:
        words = " ".join(str(exc).split())[:_MOST_WORDS]
        raise CorruptError(f"{_called(engine)} has a row that cannot be read ({words}); {_RESTORE}") from exc


def _called(engine: sa.Engine) -> str:
    return f"registry {engine.url.render_as_string(hide_password=True)}"


def bring_up_to_date(home: Home, engine: sa.Engine, *, head: str = HEAD, migrations: Path = MIGRATIONS) -> None:
    """Create the schema, or migrate an older one; an SQLite file is first backed up beside itself.

    Args:
        head: the migration to reach.
        migrations: the Alembic directory that contains it.

    Raises:
        StorageError: the database has a newer schema than this code knows.
        CorruptError: the file is not a database.
    """
    if revision(engine) == head:
        return
    # Alembic is slow to import, and only needed here.
    from alembic import command

    with exclusive(home.root / "registry.lock", what="the registry", wait=True):
        found = revision(engine)
        if found == head:
            return
        if found is not None and not is_known(found, migrations=migrations):
            raise StorageError(
                f"the registry {engine.url.render_as_string(hide_password=True)} has schema {found}, "
                f"this FlowRL supports up to {head}; use the newer FlowRL that wrote it"
            )
        if engine.dialect.name == "sqlite":
            _prepare_file(engine, found)
        with _migrating(engine) as connection:
            config = _alembic(migrations)
            config.attributes["connection"] = connection
            command.upgrade(config, head)
            _ensure_name(connection)


def revision(engine: sa.Engine) -> str | None:
    """The migration that the database is at; None for an empty one.

    Raises:
        CorruptError: it is damaged, or something else is where its files belong.
        StorageError: it does not answer.
    """
    path = engine.url.database
    if engine.dialect.name == "sqlite" and path:
        for part in (path, f"{path}-wal", f"{path}-shm"):
            if Path(part).exists() and not Path(part).is_file():
                raise CorruptError(
                    f"{part} is not a regular file: move it away, and restore the registry's own from a backup"
                )
        if not Path(path).exists():
            return None
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def is_known(found: str, *, migrations: Path = MIGRATIONS) -> bool:
    """Whether this code supports a schema: its own, or one that it can migrate."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic(migrations))
    return found in {script.revision for script in scripts.walk_revisions()}


def _alembic(migrations: Path) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


def _ensure_name(connection: sa.Connection) -> None:
    """Give a new registry its name; the table always has exactly one row."""
    if connection.execute(sa.select(meta.c.id)).first() is None:
        connection.execute(sa.insert(meta).values(id=1, uuid=str(uuid.uuid4()), created_at=time.time()))


def _prepare_file(engine: sa.Engine, found: str | None) -> None:
    with contextlib.closing(sqlite3.connect(str(engine.url.database), timeout=_BUSY_SECONDS)) as source:
        # The mode is stored in the file.
        source.execute("PRAGMA journal_mode=WAL")
        if found is None:
            return
        path = Path(str(engine.url.database))
        stamp = time.strftime("%Y%m%d-%H%M%S")
        backup = path.with_name(f"{path.stem}-schema-{found}-{stamp}{path.suffix}")
        temporary = temporary_beside(backup)
        with contextlib.closing(sqlite3.connect(temporary)) as copy:
            source.backup(copy)
        temporary.rename(backup)
        sync_directory(path.parent)
