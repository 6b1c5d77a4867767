"""Opening a registry without writing anything, neither to the file nor beside it.

SQLite writes even for queries: a database in WAL mode needs an index file beside it, and its log is merged into it when
the last connection closes. On a read-only file system, or in another user's home, that fails. So a file that nobody has
open is read as immutable, one with an index file is read through it, and a log without an index is read from a copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import sqlalchemy as sa

from flowrl_core.errors import CorruptError, StorageError
from flowrl_core.storage.database import bring_up_to_date, is_known, make_engine, reading, revision
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.schema import HEAD, metadata

__all__ = ["check_not_lost", "check_whole", "open_to_read", "read_engine"]

_TRIES = 3
"""A writer may close, which removes its log, between the check of the files and their opening."""


def open_to_read(home: Home, closing: contextlib.ExitStack, *, url: str = "") -> sa.Engine | None:
    """An engine that reads the home's registry; None if no campaign was ever started.

    A file of an older schema is read from a migrated copy; a database on a server is migrated itself.

    Args:
        closing: closes what was opened.
        url: a database to read instead of the one that the home is configured for.

    Raises:
        InputError: the database URL is wrong.
        CorruptError: the file is not a database, or is missing although the home has contents that belong to it.
        StorageError: the database has a newer schema than this code, or does not answer.
    """
    engine = read_engine(url or home.registry_url)
    closing.callback(engine.dispose)
    is_file = engine.dialect.name == "sqlite"
    path = Path(engine.url.database or "")
    if is_file and path.exists() and not os.access(path, os.R_OK):
        raise StorageError(f"the registry {path} is not readable by this user; grant yourself access")
    found = revision(engine)
    if found is None:
        check_not_lost(home, engine)
        return None
    if found == HEAD:
        return engine
    name = engine.url.render_as_string(hide_password=True)
    if not is_known(found):
        raise StorageError(
            f"the registry {name} has schema {found}, this FlowRL supports up to {HEAD}; use the newer FlowRL that "
            "wrote it"
        )
    if not is_file:  # a server's database cannot be copied, and is in nobody's home: migrate it in place
        bring_up_to_date(home, engine)
        return engine
    scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="flowrl-")))
    with contextlib.closing(_connect(path)) as source, contextlib.closing(sqlite3.connect(scratch / "copy")) as copy:
        source.backup(copy)
    migrated = make_engine(f"sqlite:///{scratch / 'copy'}")
    closing.callback(migrated.dispose)
    bring_up_to_date(Home(scratch), migrated)
    return migrated


def read_engine(url: str) -> sa.Engine:
    """An engine for the URL that never writes; nothing is opened yet.

    Raises:
        InputError: as `make_engine`.
    """
    engine = make_engine(url)
    if engine.dialect.name != "sqlite":
        return engine
    path = Path(engine.url.database or "")
    return make_engine(url, connect=lambda: _connect(path))


def check_whole(engine: sa.Engine) -> None:
    """Check that SQLite finds no damage in the registry and that no table is missing. It may take seconds.

    Raises:
        CorruptError: it is damaged.
    """
    name = engine.url.render_as_string(hide_password=True)
    found = revision(engine)
    with reading(engine) as connection:
        is_file = engine.dialect.name == "sqlite"
        told = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() if is_file else "ok"
        missing = set(metadata.tables) - set(engine.dialect.get_table_names(connection)) if found == HEAD else ()
    if told != "ok" or missing:
        what = f"has lost its tables {', '.join(sorted(missing))}" if missing else f"is damaged ({told})"
        raise CorruptError(f"registry {name} {what}; create a new home from a backup (`flowrl restore`)")


def check_not_lost(home: Home, engine: sa.Engine) -> None:
    """Refuse an empty registry in a home with contents of an earlier one: a new library would replace the old one.

    Raises:
        CorruptError: the home has versions or records of runs.
    """
    held = home.belongings
    if not held:
        return
    path = Path(engine.url.database or "")
    is_file = engine.dialect.name == "sqlite"
    what = "is empty" if not is_file or path.exists() else "is missing"
    copies = sorted(path.parent.glob(f"{path.stem}-schema-*{path.suffix}")) if is_file else []
    beside = f"put {copies[-1].name} in its place, or " if copies else ""
    elsewhere = "" if is_file else f"correct {URL_VARIABLE}, or "
    raise CorruptError(
        f"the registry {engine.url.render_as_string(hide_password=True)} {what}, but {home.root} contains "
        f"{' and '.join(held)}: the record of what was learned is lost. To go on, {elsewhere}{beside}create a new home "
        "from a backup (`flowrl restore`); to start over, set FLOWRL_HOME to a new directory"
    )


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that reads the file in its current state and writes nothing."""
    path = path.resolve()  # log and index are beside the target of a link
    log, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    for left in reversed(range(_TRIES)):
        has_log = log.exists() and log.stat().st_size > 0
        if log.exists() and index.exists():
            with contextlib.suppress(sqlite3.OperationalError):
                return _open(path, "mode=ro&readonly_shm=1")
        try:
            return _open_copy(path, log) if has_log else _open(path, "immutable=1")
        except (FileNotFoundError, sqlite3.OperationalError):
            if not left:
                raise
    raise AssertionError("unreachable")


def _open(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _open_copy(path: Path, log: Path) -> sqlite3.Connection:
    """A connection to an in-memory copy of file and log."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory(prefix="flowrl-") as scratch:
        for part in (path, log):
            shutil.copyfile(part, Path(scratch) / part.name)
        with contextlib.closing(sqlite3.connect(Path(scratch) / path.name)) as copy:
            copy.backup(memory)
    return memory
