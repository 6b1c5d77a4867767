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
from flowrl_core.types import View


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


_RUN = {"kind": "skill", "campaign": "old", "identity": "i1", "skill": "wood", "created_at": 1.0}
_PREPARED = {"plan": {"target": "wood"}, "plan_hash": "h", "remap": {"0": 0}, "seeds": {"0": None}, "run_frames": 9}
_TRIED = {"campaign": "old", "identity": "i1", "skill": "wood", "created_at": 1.0}
_VERSION = {"kind": "skill", "expert": 0, "run": 1, "created_at": 1.0}
_LOOK = {"run": 1, "episodes": 8, "successes": 7, "lower_bound": 0.5, "level": 0.05, "target": 0.8, "created_at": 1.0}
_PROPOSAL = {"campaign": "old", "round": 1, "name": "wood", "model": "m", "call": "c", "created_at": 1.0}
_Rows = dict[str, list[dict[str, Any]]]
_FIRST: _Rows = {
    "campaigns": [{"name": "old", "env": "e", "spec": {}, "start": 1, "created_at": 1.0, "started_at": 1.0}],
    "skills": [{"identity": "i1", "name": "wood", "env": "e", "definition": {}, "created_at": 1.0}],
    "runs": [
        {"id": 1, "ordinal": 1, "verdict": "learned", **_RUN, **_PREPARED},
        {"id": 2, "ordinal": 2, "verdict": None, **_RUN},
    ],
    "attempts": [
        {"id": 1, "run": 1, "number": 1, "key": "k1", "ended": "cancelled", "ended_in_start": 1, **_TRIED},
        {"id": 2, "run": 2, "number": 2, "key": "k2", "ended": None, "ended_in_start": None, **_TRIED},
    ],
    "interruptions": [{"attempt": 1, "number": 1, "start": 1, "reason": "killed", "created_at": 1.0}],
    "experts": [{"global_index": 0, "identity": "i1", "kind": "skill"} | SIZES],
    "versions": [
        {"id": 1, "content": "a", "frames": 5, "parent": None, **_VERSION},
        {"id": 2, "content": "b", "frames": 7, "parent": 1, **_VERSION},
    ],
    "heads": [{"expert": 0, "version": 2}],
    "looks": [{"number": 1, "frames": 9, "steps": [0.5], "worlds": [1, 2]} | _LOOK],
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
_SECOND: _Rows = {
    "runs": [{"id": 3, "ordinal": 3, "verdict": "failed", "epoch": 2, **_RUN}],
    "attempts": [{"id": 3, "run": 3, "number": 3, "key": "k3", "ended": "rejected", **_TRIED}],
    "evaluations": [
        {"id": 1, "identity": "i1", "of": "heads", "versions": {"0": 2}, "episodes": 8, "level": 0.05}
        | {"created_at": 1.0}
    ],
    "merges": [
        {"run": 3, "expert": 0, "action": "kept", "version": 2, "frames": 5, "routed_frames": 5}
        | {"measured": {"head": 1}}
    ],
}
_THIRD: _Rows = {
    "runs": [{"id": 4, "ordinal": 4, "verdict": "failed", "reflection": {"total": 1.0}, **_RUN}],
    "looks": [{"number": 2, "frames": 10, "steps": [0.5], "worlds": [3], "ends": [[1, 2]]} | _LOOK],
    "proposals": [{"id": 1, "state": "accepted", "refusals": [], "repairs": [], "identity": "i1", **_PROPOSAL}],
    "requests": [
        {"id": 1, "campaign": "old", "model": "m", "outcome": "answered", "input_tokens": 1, "output_tokens": 2}
        | {"cost": 0.5, "created_at": 1.0}
    ],
}
_ADDED = {"0001": [_FIRST], "0002": [_FIRST, _SECOND], "0003": [_FIRST, _SECOND, _THIRD]}
"""Rows that a registry of each schema can hold, by what it added."""


def _older(home: Home, revision: str) -> _Rows:
    """A registry of an older schema, with rows in each of its tables; these rows by table."""
    home.root.mkdir()
    engine = make_engine(home.registry_url)
    bring_up_to_date(home, engine, head=revision)
    tables = sa.MetaData()
    tables.reflect(engine)
    rows: _Rows = {}
    with writing(engine) as tx:
        for added in _ADDED[revision]:
            for table, entries in added.items():
                rows.setdefault(table, []).extend(entries)
                for entry in entries:
                    tx.execute(sa.insert(tables.tables[table]).values(**entry))
        if engine.dialect.name == "postgresql":  # which does not count rows that came with their numbers
            for table in [name for name, entries in rows.items() if "id" in entries[0]]:
                tx.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 100)")
    engine.dispose()
    return rows


def _kept(url: str, rows: _Rows) -> _Rows:
    """What a database has in the columns of these rows, in the order of their first column."""
    engine, kept = make_engine(url), {}
    tables = sa.MetaData()
    tables.reflect(engine)
    with reading(engine) as tx:
        for name, entries in rows.items():
            table = tables.tables[name]
            keys = table.primary_key.columns
            found = [dict(row) for row in tx.execute(sa.select(table).order_by(*keys)).mappings()]
            kept[name] = [{c: row[c] for c in entry} for row, entry in zip(found, entries, strict=True)]
    engine.dispose()
    return kept


def _moved(rows: _Rows) -> _Rows:
    """Where the newest schema has the columns of these rows."""
    moved = {table: [dict(entry) for entry in entries] for table, entries in rows.items()}
    own = ("identity", "run_frames", "plan", "plan_hash", "remap", "seeds", "reflection")
    moved["skill_runs"] = [{"run": row["id"]} | {n: row[n] for n in own if n in row} for row in rows["runs"]]
    for row in moved["runs"]:
        row |= {"family": row.pop("kind"), "name": row.pop("skill"), "subject": row["identity"]}
        for name in own:
            row.pop(name, None)
    for row in moved["attempts"]:
        row |= {"name": row.pop("skill"), "subject": row.pop("identity"), "line": ""}
    for row in (*moved["experts"], *moved["bundles"]):
        row["line"] = ""
    for row in moved["experts"]:
        row["view"] = View.PLAIN
    for row in moved["campaigns"]:
        row |= {"family": "skill", "line": ""}
    return moved


@pytest.mark.parametrize("revision", _ADDED)
def test_a_registry_of_an_older_schema_keeps_every_row(home: Home, empty_database: str, revision: str) -> None:
    rows = _older(home, revision)
    uuid = _kept(home.registry_url, {"meta": [{"uuid": ""}]})
    assert _kept(home.registry_url, rows) == rows
    with Registry.open(home) as registry:
        assert [{"uuid": registry.uuid}] == uuid["meta"]
        assert (registry.attempts.get(1).end, registry.attempts.get(2).end) == ("cancelled", None)
        assert (registry.skill_runs.get(2).reflection, registry.skill_runs.get(2).epoch) == (None, 0)
        assert (registry.skill_runs.looks(1)[0].steps, registry.skill_runs.looks(1)[0].ends) == ((0.5,), ())
        assert [run.subject for run in registry.runs.of("skill")] == ["i1"] * len(rows["runs"])
    assert _kept(home.registry_url, _moved(rows)) == _moved(rows)
    if empty_database == "sqlite":
        (backup,) = home.root.glob(f"registry-schema-{revision}-*.sqlite")
        assert _kept(f"sqlite:///{backup}", rows | {"meta": [{"uuid": ""}]}) == rows | uuid
        for file, found in ((backup, revision), (home.registry, schema.HEAD)):
            with sqlite3.connect(file) as connection:
                assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(found,)]
                assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_experts_go_on_seeing_what_they_saw(home: Home, empty_database: str) -> None:
    home.root.mkdir()
    engine = make_engine(home.registry_url)
    bring_up_to_date(home, engine, head="0005")
    tables = sa.MetaData()
    tables.reflect(engine)
    with writing(engine) as tx:
        for number, canonical_view in enumerate((False, True)):
            skill = _FIRST["skills"][0] | {"identity": f"i{number}"}
            expert = {"global_index": number, "identity": skill["identity"], "kind": "skill"} | SIZES
            tx.execute(sa.insert(tables.tables["skills"]).values(**skill))
            tx.execute(sa.insert(tables.tables["experts"]).values(**expert, canonical_view=canonical_view))
    engine.dispose()
    with Registry.open(home) as registry:
        assert [expert.view for expert in registry.library.experts()] == [View.PLAIN, View.CANONICAL]


def test_after_the_migration_an_open_run_is_adopted_and_its_attempt_is_still_outstanding(
    home: Home, empty_database: str
) -> None:
    _older(home, "0003")
    with Registry.open(home) as registry:
        with pytest.raises(ConflictError, match="attempt 2 of run 2 .wood. is outstanding"):
            registry.attempts.begin(2)
        registry.attempts.end(2, "infrastructure", "killed")
        assert registry.runs.open("skill", "wood", campaign="old", subject="i1").id == 2
        assert registry.attempts.begin(2).number == 4, "counted on"
        assert registry.runs.open("toy", "Wood").ordinal == 5, "no two directories of one name"


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


@pytest.mark.parametrize("revision", ["0001", "0003"])
def test_a_migrated_registry_refuses_what_the_schema_refuses(
    home: Home, empty_database: str, revision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _older(home, revision)
    with Registry.open(home) as registry:
        assert registry.attempts.end(2, "rejected").end == "rejected"
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
    for file, columns in ((backup, 3), (home.registry, 4)):
        with sqlite3.connect(file) as connection:
            (row,) = connection.execute("SELECT * FROM meta").fetchall()
            assert len(row) == columns and row[1] == uuid

    with pytest.raises(StorageError, match=f"schema 9999, this FlowRL supports up to {schema.HEAD}"):
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
