"""Checks of `flowrl doctor` on the registry's database, and on the experts that it lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowrl_cli.checks.finding import Diagnosis
from flowrl_core.errors import CorruptError, FlowRLError, InputError
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.text import counted

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["examine_library", "examine_registry"]

_ANSWER_S = 3.0
_RESTORE = "flowrl restore BACKUP, with FLOWRL_HOME set to a new directory"
_MOST_READ = 500_000_000
"""Bytes of versions to verify by checksum; beyond that, only sizes are compared."""


def examine_registry(home: Home) -> Iterator[Diagnosis]:
    """Yield the findings on the registry's database: is it reachable, undamaged, of this schema? Changes nothing."""
    from flowrl_core.storage.reader import check_not_lost, read_engine

    try:
        engine = read_engine(_impatient(home.registry_url))
    except InputError as exc:
        driver = 'pip install "psycopg[binary]"' if "psycopg" in exc.problem else f"unset {URL_VARIABLE}"
        yield Diagnosis("registry", "wrong", exc.problem, f"{driver}, or correct {URL_VARIABLE}")
        return
    is_file = engine.dialect.name == "sqlite"
    try:
        found = None if is_file and not Path(engine.url.database or "").exists() else _schema(engine)
        if found is None:
            check_not_lost(home, engine)
    except FlowRLError as exc:
        mend = _RESTORE if is_file else f"start that database, or correct {URL_VARIABLE}"
        yield Diagnosis("registry", "wrong", str(exc), mend)
        return
    finally:
        engine.dispose()
    try:
        _read_rows(home)
    except CorruptError as exc:
        yield Diagnosis("registry", "wrong", str(exc), _RESTORE)
        return
    except FlowRLError:
        pass  # an unreadable schema is reported below
    yield _of_schema(engine.url.render_as_string(hide_password=True), found, is_file=is_file)


def examine_library(home: Home) -> Iterator[Diagnosis]:
    """Yield the findings on the parameters of the experts that the registry needs: do they exist unchanged?"""
    from flowrl_core.stages.upkeep.families import FAMILIES
    from flowrl_core.storage.damage import in_words
    from flowrl_core.storage.families import damage
    from flowrl_core.storage.registry import Registry

    try:
        registry = Registry.read(home)
        if registry is None:
            return
        with registry:
            count = len(registry.library.relied_on())
            damaged = damage(home, registry, FAMILIES, by_size=_size(home.versions) > _MOST_READ)
    except FlowRLError:
        return  # the check of the registry has reported it
    if damaged:
        problem, mend = in_words(home, damaged)
        yield Diagnosis("library", "wrong", problem, mend)
    elif count:
        yield Diagnosis("library", "ok", f"{counted(count, 'version')} of experts, all present")


def _read_rows(home: Home) -> None:
    """Check that the rows of campaigns and runs can be read.

    Raises:
        FlowRLError: they cannot.
    """
    from flowrl_core.storage.registry import Registry

    registry = Registry.read(home, url=_impatient(home.registry_url))
    if registry is None:
        return
    with registry:
        for campaign in registry.campaigns.all():
            registry.skills.figures(campaign.name)
            for record in registry.skills.of(campaign.name).values():
                registry.skill_runs.of(record.identity)


def _schema(engine: sa.Engine) -> str | None:
    """Return the schema of an undamaged database; None if it is empty.

    Raises:
        CorruptError: it is damaged.
        StorageError: it does not answer.
    """
    from flowrl_core.storage.database import revision
    from flowrl_core.storage.reader import check_whole

    found = revision(engine)
    if found is not None:
        check_whole(engine)
    return found


def _of_schema(name: str, found: str | None, *, is_file: bool) -> Diagnosis:
    from flowrl_core.storage.schema import HEAD

    if found in (None, HEAD):
        return Diagnosis("registry", "ok", f"{name} ({f'schema {found}' if found else 'will be created'})")
    if str(found) < HEAD:
        backup = "with a backup beside it" if is_file else "back it up before"
        problem = f"{name} has schema {found}, not {HEAD}"
        return Diagnosis("registry", "wrong", problem, f"the next flowrl campaign migrates it, {backup}")
    mend = "use the newer FlowRL that wrote it"
    return Diagnosis("registry", "wrong", f"{name} has schema {found}, this FlowRL supports up to {HEAD}", mend)


def _impatient(url: str) -> str:
    """Return the URL with a time limit for a database that does not answer."""
    import sqlalchemy as sa
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        return url
    if not parsed.drivername.startswith("postgresql") or "connect_timeout" in parsed.query:
        return url
    patient = parsed.update_query_dict({"connect_timeout": f"{_ANSWER_S:.0f}"})
    return patient.render_as_string(hide_password=False)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
