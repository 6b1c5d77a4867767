"""Backup and restoration of a home, also to another place and another kind of database.

A backup is a directory:

    registry.sqlite   the registry's rows, whichever database they came from
    versions/         parameters
    sealed/           prepared inputs that an open run or a family needs
    runs/  archive/   and the families' own directories: knowledge/  journal/

What can be made again (compiled programs) and the embedded Prefect with its history are left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from flowrl_core.errors import CorruptError, FlowRLError, InputError, StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.atomic import crash_point, is_temporary, publish_directory, sync_directory, temporary_beside
from flowrl_core.storage.damage import in_words
from flowrl_core.storage.database import bring_up_to_date, make_engine, reading, revision, writing
from flowrl_core.storage.families import Family, damage, needed_sealed
from flowrl_core.storage.layout import Home, check_name
from flowrl_core.storage.manifests import flaw
from flowrl_core.storage.reader import check_whole, open_to_read, read_engine
from flowrl_core.storage.registry import Registry

__all__ = ["Copied", "backup", "restore"]

logger = logging.getLogger(__name__)

_DIRECTORIES = ("versions", "runs", "archive")
"""Directories common to all families, copied unchanged."""
_SEALED = "sealed"
_RESTORING = "restoring"
"""Staging directory in a home: while it exists, the restoration is unfinished."""
_RESTORED = "the registry was restored from a backup"


@dataclass(frozen=True)
class Copied:
    """What a backup or restoration copied: rows of all tables, versions of parameters, bytes of all files."""

    rows: int
    versions: int
    bytes: int


def backup(home: Home, target: Path, families: Sequence[Family]) -> Copied:
    """Copy the content of a home to `target`, atomically, and return what was copied. Campaigns may run meanwhile.

    The home is not changed, so it may be read-only.

    The registry is copied first: every file that its rows name was written before them, so it is copied after.

    Args:
        families: all families that may have runs in the registry; they say what is needed.

    Raises:
        InputError: `target` exists or cannot be used, or there is nothing to copy.
        CorruptError: the registry, or something that a family relies on, is damaged or missing.
        StorageError: a file cannot be read, or there are runs of another family.
    """
    target = Path(target).absolute()
    check_name("target", target)
    if os.path.lexists(target):
        raise InputError("target", f"{target} exists", "Name a directory that does not exist yet")
    if target.is_relative_to(home.root):
        raise InputError("target", f"{target} is inside the home to be backed up", "Name a directory outside it")
    fresh = temporary_beside(target)
    with contextlib.ExitStack() as closing:
        source = open_to_read(home, closing)
        if source is None:
            raise InputError("FLOWRL_HOME", f"{home.root} has no registry", "Set it to the home to be backed up")
        check_whole(source)
        closing.callback(shutil.rmtree, fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        rows = _save_rows(source, fresh)
        for name in _whole_directories(families):
            _copy_tree(home.root / name, fresh / name)
        _copy_sealed(home, Home(fresh), families)
        _check_files(Home(fresh), families, of=home)
        copied = _count(fresh, rows, families)
        publish_directory(fresh, target)
    return copied


def restore(source: Path, home: Home, families: Sequence[Family]) -> Copied:
    """Fill an empty home from a backup, on the database it is configured for, and return what was copied.

    The registry gets a new name, so that a Prefect server that knows the old one does not answer with its runs.
    Outstanding attempts end as infrastructure trouble: the next start of a campaign resumes from there.

    Args:
        families: all families that may have runs in the registry.

    Raises:
        InputError: `source` is not a backup, or the home is not empty or not writable.
        CorruptError: the backup's registry, or something that a family relies on, is damaged or missing.
        StorageError: the backup has a newer schema than this code, or runs of another family.
    """
    source = Path(source).absolute()
    check_name("source", source)
    if not (source / "registry.sqlite").is_file():
        raise InputError("source", f"{source} is not a backup", "Name a directory that `flowrl backup` has made")
    home.check_writable()
    names = (*_whole_directories(families), _SEALED)
    _check_empty(home, names)
    _check_rows(source)
    _check_files(Home(source), families, of=Home(source))
    is_new = not home.root.exists()
    stage = Home(home.root / _RESTORING)
    _remove_unfinished(home, names)
    try:
        stage.root.mkdir(parents=True)
        for name in names:
            _copy_tree(source / name, stage.root / name)
        crash_point("restored_files")
        rows = _fill_registry(source, home, stage, names)
    except BaseException:
        with contextlib.suppress(FlowRLError):  # already restored, or that cannot be determined
            _check_empty(home, names)
            _remove_unfinished(home, names)
            if is_new:
                shutil.rmtree(home.root, ignore_errors=True)
        raise
    shutil.rmtree(stage.root, ignore_errors=True)
    return _count(home.root, rows, families)


def _fill_registry(source: Path, home: Home, stage: Home, names: Sequence[str]) -> int:
    """Load the rows, move the staged files to their places, and return the number of rows.

    The registry comes last: files without it are an unfinished restoration. The home's own SQLite file is renamed when
    complete; in any other database the rows are one transaction.
    """
    own = f"sqlite:///{home.registry}"
    is_own = home.registry_url == own
    engine = make_engine(f"sqlite:///{stage.registry}" if is_own else home.registry_url)
    try:
        bring_up_to_date(stage, engine)
        with writing(engine) as into:
            rows = _load_rows(source, stage, into)
            if not is_own:
                _publish(stage, home, names)
    finally:
        engine.dispose()
    if is_own:
        with contextlib.closing(sqlite3.connect(stage.registry)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _publish(stage, home, names)
        os.rename(stage.registry, home.registry)
        sync_directory(home.root)
    crash_point("restored_registry")
    return rows


def _publish(stage: Home, home: Home, names: Sequence[str]) -> None:
    for name in names:
        if (stage.root / name).is_dir():
            os.rename(stage.root / name, home.root / name)
            crash_point("restored_directory")
    sync_directory(home.root)


def _remove_unfinished(home: Home, names: Sequence[str]) -> None:
    """Remove what an unfinished restoration left, if there was one."""
    stage = home.root / _RESTORING
    if stage.is_dir() and not home.registry.exists():
        for name in names:
            shutil.rmtree(home.root / name, ignore_errors=True)
    shutil.rmtree(stage, ignore_errors=True)


def _save_rows(source: sa.Engine, target: Path) -> int:
    copy = Home(target)
    engine = make_engine(f"sqlite:///{copy.registry}")
    try:
        bring_up_to_date(copy, engine)
        with writing(engine) as into, reading(source) as rows:
            return _copy_rows(rows, into)
    finally:
        engine.dispose()
        _as_one_file(copy.registry)


def _load_rows(source: Path, stage: Home, into: sa.Connection) -> int:
    # A copy, since it may have to be migrated first and a backup is never changed.
    scratch = stage.root / "scratch"
    scratch.mkdir()
    try:
        shutil.copy2(source / "registry.sqlite", scratch / "registry.sqlite")
        saved = make_engine(f"sqlite:///{scratch / 'registry.sqlite'}")
        bring_up_to_date(Home(scratch), saved)
        with reading(saved) as rows:
            count = _copy_rows(rows, into)
        into.execute(sa.update(schema.meta).values(uuid=str(uuid.uuid4())))
        ended = {"ended": "infrastructure", "reason": _RESTORED, "ended_at": time.time()}
        into.execute(sa.update(schema.attempts).where(schema.attempts.c.ended.is_(None)).values(**ended))
        _advance_sequences(into)
        saved.dispose()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return count


def _copy_rows(rows: sa.Connection, into: sa.Connection) -> int:
    count = 0
    into.execute(sa.delete(schema.meta))  # a new registry already has a name
    for table in schema.metadata.sorted_tables:
        # In key order, so that a version comes after its parent.
        found = [dict(row) for row in rows.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()]
        if found:
            into.execute(sa.insert(table), found)
        count += len(found)
    return count


def _advance_sequences(connection: sa.Connection) -> None:
    """Make Postgres number new rows after those just copied; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in schema.metadata.sorted_tables:
        for column in table.primary_key.columns:
            sequence = connection.exec_driver_sql(
                f"SELECT pg_get_serial_sequence('{table.name}', '{column.name}')"
            ).scalar()
            if sequence:
                last = sa.select(sa.func.max(column)).scalar_subquery()
                connection.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(last, 1))))


def _as_one_file(path: Path) -> None:
    """Fold the write-ahead log into the database's file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a directory without temporary and lock files; a file may vanish meanwhile, as runs continue."""
    if not source.is_dir():
        return
    target.mkdir(exist_ok=True)
    for path in _entries(source):
        if is_temporary(path) or path.suffix == ".lock":
            continue
        try:
            if path.is_dir():
                _copy_tree(path, target / path.name)
            elif path.is_file():  # pipes and sockets have no content
                with _readable():
                    shutil.copy2(path, target / path.name)
        except FileNotFoundError:
            logger.info("%s disappeared while it was copied", path)


def _whole_directories(families: Sequence[Family]) -> tuple[str, ...]:
    return (*_DIRECTORIES, *(name for family in families for name in family.directories))


def _copy_sealed(home: Home, copy: Home, families: Sequence[Family]) -> None:
    """Copy the sealed directories that are needed; all others can be made again, and may be large.

    A missing or damaged one is left out: it is made again from its inputs, unless its family says otherwise.
    """
    with _registry_of(copy) as registry:
        needed = needed_sealed(home, registry, families)
    for directory in sorted(path for path in needed if path.is_dir()):
        if problem := flaw(directory):
            logger.warning("%s %s: left out, it is made again when it is needed", directory, problem)
            continue
        target = copy.root / directory.relative_to(home.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_tree(directory, target)


def _entries(directory: Path) -> list[Path]:
    with _readable():
        return sorted(directory.iterdir())


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise StorageError(f"{exc.filename}: {exc.strerror}; nothing was copied; grant yourself access") from exc


def _check_rows(source: Path) -> None:
    """Check that all rows of the backup can be read, before any of them is written."""
    engine = read_engine(f"sqlite:///{source / 'registry.sqlite'}")
    try:
        check_whole(engine)
        if revision(engine) == schema.HEAD:
            with reading(engine) as rows:
                for table in schema.metadata.sorted_tables:
                    rows.execute(sa.select(table)).all()
    except CorruptError as exc:
        problem = str(exc).partition("; create a new home")[0]
        raise CorruptError(f"{problem}: nothing was restored, name another backup") from exc
    finally:
        engine.dispose()


def _check_files(copy: Home, families: Sequence[Family], *, of: Home) -> None:
    """Check that everything the families rely on is there and intact; damage is reported as that of the home `of`."""
    with _registry_of(copy) as registry:
        if unknown := registry.runs.families() - {family.name for family in families}:
            runs = f"the registry of {of.root} has runs of {', '.join(sorted(unknown))}"
            problem = f"{runs}, and this version of FlowRL does not know which of their files a backup needs"
            raise StorageError(f"{problem}. Nothing was copied: use the version that made them")
        if damaged := damage(copy, registry, families, by_size=False):
            problem, remedy = in_words(of, damaged)
            raise CorruptError(f"{problem}. Nothing was copied: {remedy}")


def _registry_of(copy: Home) -> Registry:
    registry = Registry.read(copy, url=f"sqlite:///{copy.registry}")
    if registry is None:
        raise CorruptError(f"the registry {copy.registry} is empty")
    return registry


def _check_empty(home: Home, names: Sequence[str]) -> None:
    remedy = "Set FLOWRL_HOME to a new directory (and FLOWRL_REGISTRY_URL, if set, to an empty database)"
    unfinished = names if (home.root / _RESTORING).is_dir() else ()
    for name in (*names, "registry.sqlite"):
        if (home.root / name).exists() and name not in unfinished:
            raise InputError("FLOWRL_HOME", f"{home.root} already contains {name}", remedy)
    engine = make_engine(home.registry_url)
    try:
        if engine.dialect.name != "sqlite":
            with reading(engine) as tx:
                if sa.inspect(tx).has_table("meta") and _has_rows(tx):
                    raise InputError("FLOWRL_REGISTRY_URL", "the database already contains a registry", remedy)
    finally:
        engine.dispose()


def _has_rows(connection: sa.Connection) -> bool:
    """Whether a registry contains anything besides its name."""
    tables = [table for table in schema.metadata.sorted_tables if table is not schema.meta]
    return any(connection.execute(sa.select(sa.literal(1)).select_from(one).limit(1)).first() for one in tables)


def _count(root: Path, rows: int, families: Sequence[Family]) -> Copied:
    files = [
        path for name in (*_whole_directories(families), _SEALED) for path in (root / name).rglob("*") if path.is_file()
    ]
    versions = [path for path in (root / "versions").glob("*") if path.is_dir()]
    return Copied(rows, len(versions), sum(path.stat().st_size for path in files))
