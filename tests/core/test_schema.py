"""Opening a registry: its schema, older and newer ones, and what is refused."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registry_steps import SIZES

from flowrl_core.errors import ConflictError, CorruptError, InputError, StorageError
from flowrl_core.storage import schema
from flowrl_core.storage.database import MIGRATIONS, bring_up_to_date, make_engine, reading, writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry


@pytest.fixture
def home(new_home: Home) -> Home:
    return new_home


def test_opening_again_gives_the_same_registry(home: Home) -> None:
    with Registry.open(home) as first, Registry.open(home) as second:
        assert first.uuid == second.uuid


def test_opening_imports_neither_jax_nor_alembic_when_nothing_is_to_migrate(home: Home) -> None:
    Registry.open(home).close()
    program = (
        "import sys; from pathlib import Path; from flowrl_core.storage.layout import Home\n"
        "from flowrl_core.storage.registry import Registry\n"
        "Registry.open(Home(Path(sys.argv[1]))).uuid\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'jax', 'alembic', 'prefect', 'orbax'}, loaded"
    )
    subprocess.run([sys.executable, "-c", program, str(home.root)], check=True, timeout=60)


def _next_migration(directory: Path) -> Path:
    """A copy of the migrations with one more."""
    shutil.copytree(MIGRATIONS, directory)
    (directory / "versions" / "9999_next.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision = '9999'\n"
        f"down_revision = {schema.HEAD!r}\n"
        "def upgrade():\n    op.add_column('meta', sa.Column('note', sa.Text()))\n"
    )
    return directory


def _first_schema(home: Home) -> dict[str, list[dict[str, Any]]]:
    """A registry as the first migration makes it, with rows in each of its tables; these rows by table."""
    home.root.mkdir()
    engine = make_engine(home.registry_url)
    bring_up_to_date(home, engine, head="0001")
    run = {"kind": "skill", "campaign": "old", "identity": "i1", "skill": "wood", "created_at": 1.0}
    tried = {"campaign": "old", "identity": "i1", "skill": "wood", "created_at": 1.0}
    version = {"kind": "skill", "expert": 0, "run": 1, "created_at": 1.0}
    rows: dict[str, list[dict[str, Any]]] = {
        "campaigns": [{"name": "old", "env": "e", "spec": {}, "start": 1, "created_at": 1.0, "started_at": 1.0}],
        "skills": [{"identity": "i1", "name": "wood", "env": "e", "definition": {}, "created_at": 1.0}],
        "runs": [{"id": 1, "ordinal": 1, "verdict": "learned", **run}, {"id": 2, "ordinal": 2, **run}],
        "attempts": [
            {"id": 1, "run": 1, "number": 1, "key": "k1", "ended": "cancelled", "ended_in_start": 1, **tried},
            {"id": 2, "run": 2, "number": 2, "key": "k2", "flow_run_id": "f", **tried},
        ],
        "interruptions": [{"attempt": 1, "number": 1, "start": 1, "reason": "killed", "created_at": 1.0}],
        "experts": [{"global_index": 0, "identity": "i1", "kind": "skill"} | SIZES],
        "versions": [
            {"id": 1, "content": "a", "frames": 5, **version},
            {"id": 2, "content": "b", "frames": 7, "parent": 1, **version},
        ],
        "heads": [{"expert": 0, "version": 2}],
        "looks": [
            {"run": 1, "number": 1, "frames": 9, "episodes": 8, "successes": 7, "lower_bound": 0.5, "level": 0.05}
            | {"target": 0.8, "steps": [], "worlds": [], "created_at": 1.0}
        ],
        "merges": [
            {"run": 1, "expert": 0, "action": "new", "version": 1, "to_version": 1, "frames": 5, "routed_frames": 5}
        ],
        "bundles": [
            {"id": 1, "run": 1, "identity": "i1", "plan": {}, "success": 0.9, "lower_bound": 0.8, "episodes": 8}
            | {"threshold": 0.7, "created_at": 1.0}
        ],
        "bundle_versions": [{"bundle": 1, "expert": 0, "version": 1}],
        "campaign_skills": [{"campaign": "old", "name": "wood", "identity": "i1", "forgiven_run": 1}],
    }
    with writing(engine) as tx:
        for table, entries in rows.items():
            for entry in entries:
                tx.execute(sa.insert(schema.metadata.tables[table]).values(**entry))
    engine.dispose()
    return rows


def _kept(url: str, rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What a database has in the places of these rows."""
    engine, kept = make_engine(url), {}
    with reading(engine) as tx:
        for name, entries in rows.items():
            table = schema.metadata.tables[name]
            found = tx.execute(sa.select(*(table.c[column] for column in entries[0])).order_by(sa.text("1")))
            kept[name] = [dict(row) for row in found.mappings()]
    engine.dispose()
    return kept


def test_a_registry_of_the_first_schema_keeps_every_row(home: Home, empty_database: str) -> None:
    rows = _first_schema(home)
    expected = {name: [{c: entry.get(c) for c in entries[0]} for entry in entries] for name, entries in rows.items()}
    uuid = _kept(home.registry_url, {"meta": [{"uuid": ""}]})
    with Registry.open(home) as registry:
        assert [{"uuid": registry.uuid}] == uuid["meta"]
        assert (registry.attempt(1).end, registry.attempt(2).end) == ("cancelled", None)
    assert _kept(home.registry_url, rows) == expected
    assert _kept(home.registry_url, {"runs": [{"epoch": 0}]}) == {"runs": [{"epoch": 0}, {"epoch": 0}]}
    if empty_database == "sqlite":
        (backup,) = home.root.glob("registry-schema-0001-*.sqlite")
        assert _kept(f"sqlite:///{backup}", rows | {"meta": [{"uuid": ""}]}) == expected | uuid
        for file, revision in ((backup, "0001"), (home.registry, schema.HEAD)):
            with sqlite3.connect(file) as connection:
                assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
                assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_runs_and_looks_of_the_second_schema_have_no_reflection_and_no_ends(home: Home, empty_database: str) -> None:
    home.root.mkdir()
    engine = make_engine(home.registry_url)
    bring_up_to_date(home, engine, head="0002")
    run = {"id": 1, "kind": "skill", "campaign": "old", "identity": "i1", "skill": "wood", "ordinal": 1}
    look = {"run": 1, "number": 1, "frames": 9, "episodes": 8, "successes": 7, "lower_bound": 0.5, "level": 0.05}
    rows: dict[str, dict[str, Any]] = {
        "campaigns": {"name": "old", "env": "e", "spec": {}, "start": 1, "created_at": 1.0, "started_at": 1.0},
        "skills": {"identity": "i1", "name": "wood", "env": "e", "definition": {}, "created_at": 1.0},
        "runs": run | {"created_at": 1.0},
        "looks": look | {"target": 0.8, "steps": [0.5], "worlds": [1, 2], "created_at": 1.0},
    }
    with writing(engine) as tx:
        for table, entry in rows.items():
            tx.execute(sa.insert(schema.metadata.tables[table]).values(**entry))
    engine.dispose()
    with Registry.open(home) as registry:
        assert registry.run(1).reflection is None
        (found,) = registry.looks(1)
        assert (found.steps, found.ends) == ((0.5,), ())
        assert registry.proposals("old") == [] and registry.spending("old").requests == 0


def _rules(engine: sa.Engine) -> dict[str, list[str]]:
    """All constraints, references and indexes of a database, by table."""
    inspector = sa.inspect(engine)
    found = {}
    for table in schema.metadata.tables:
        rules: list[Any] = [*inspector.get_check_constraints(table), *inspector.get_unique_constraints(table)]
        rules += [*inspector.get_foreign_keys(table), inspector.get_pk_constraint(table)]
        for index in inspector.get_indexes(table):
            options = index.pop("dialect_options", {})
            rules.append({**index, "where": str(options.get("sqlite_where", options.get("postgresql_where")))})
        columns = [(column["name"], column["nullable"]) for column in inspector.get_columns(table)]
        found[table] = sorted(str(rule) for rule in [*rules, *columns])
    return found


def test_a_migrated_registry_refuses_what_the_schema_refuses(
    home: Home, empty_database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _first_schema(home)
    with Registry.open(home) as registry:
        assert registry.end_attempt(2, "rejected").end == "rejected"
    is_sqlite = empty_database == "sqlite"
    url = f"sqlite:///{tmp_path}/fresh.sqlite" if is_sqlite else request.getfixturevalue("postgres_registry")
    fresh, migrated = make_engine(url), make_engine(home.registry_url)
    with writing(fresh) as tx:
        schema.metadata.drop_all(tx)
        schema.metadata.create_all(tx)
    has = _rules(migrated)
    for table, rules in _rules(fresh).items():
        assert has[table] == rules, table
    nonsense = sa.update(schema.attempts).where(schema.attempts.c.id == 2).values(ended="nonsense")
    with pytest.raises(ConflictError, match="ck_attempts_ended"), writing(migrated) as tx:
        tx.execute(nonsense)
    fresh.dispose()
    migrated.dispose()


def test_an_older_schema_is_migrated_with_a_backup_and_a_newer_one_refused(home: Home, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        uuid = registry.uuid
    migrations = _next_migration(tmp_path / "migrations")
    bring_up_to_date(home, make_engine(home.registry_url), head="9999", migrations=migrations)

    (backup,) = home.root.glob(f"registry-schema-{schema.HEAD}-*.sqlite")
    for file, columns in ((backup, 4), (home.registry, 5)):
        with sqlite3.connect(file) as connection:
            (row,) = connection.execute("SELECT * FROM meta").fetchall()
            assert len(row) == columns and row[1] == uuid

    with pytest.raises(StorageError, match=f"schema 9999, this FlowRL knows up to {schema.HEAD}"):
        Registry.open(home)


def test_a_migration_that_fails_changes_nothing(home: Home, tmp_path: Path) -> None:
    Registry.open(home).close()
    migrations = _next_migration(tmp_path / "migrations")
    with open(migrations / "versions" / "9999_next.py", "a") as file:
        file.write("    op.execute('CREATE TABLE half (id INTEGER)')\n    op.execute('nonsense')\n")
    with pytest.raises(StorageError, match="nonsense"):
        bring_up_to_date(home, make_engine(home.registry_url), head="9999", migrations=migrations)
    Registry.open(home).close()
    assert not sa.inspect(make_engine(home.registry_url)).has_table("half")


def test_a_file_that_is_no_database_is_refused(home: Home) -> None:
    home.root.mkdir()
    home.registry.write_bytes(b"not a database, but long enough to look at " * 100)
    with pytest.raises(CorruptError, match="not a database"):
        Registry.open(home)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql+psycopg:/me:secret@here/x",
        "postgresql+psycopg://me:secret@here:port/x",
        "oracle9://me:secret@here/x",
        "postgresql+nodriver://me:secret@here/x",
        "mssql+pyodbc://me:secret@here/x",
        "postgresql+asyncpg://me:secret@here/x",  # that is what Prefect's server wants
        "sqlite+aiosqlite:///x",
    ],
)
def test_a_wrong_database_url_is_refused_by_name(home: Home, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", url)
    with pytest.raises(InputError, match=r"FLOWRL_REGISTRY_URL.*postgresql\+psycopg://user@host/name") as error:
        Registry.open(home)
    assert "secret" not in str(error.value)
    assert not home.root.exists()
