"""What can happen to a registry on Postgres, but not to a file: connections that break, wrong passwords, overlap."""

import socket
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from postgres_server import PostgresServer

from flowrl_core.errors import CorruptError, StorageError
from flowrl_core.storage import database, schema
from flowrl_core.storage.database import make_engine, reading, writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry


@pytest.fixture
def engine(postgres_registry: str) -> Iterator[sa.Engine]:
    engine = make_engine(postgres_registry)
    yield engine
    engine.dispose()


@pytest.fixture
def other(postgres_registry: str) -> Iterator[sa.Engine]:
    """Another process's."""
    engine = make_engine(postgres_registry)
    yield engine
    engine.dispose()


def _refused(tmp_path, monkeypatch, url):
    """What opening the registry of this URL says."""
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", url)
    with pytest.raises(StorageError) as error:
        Registry.open(Home(tmp_path))
    return str(error.value)


def test_a_wrong_password_is_an_error_that_does_not_tell_it(tmp_path, monkeypatch, postgres: PostgresServer):
    said = _refused(tmp_path, monkeypatch, postgres.url("postgres").replace(postgres.password, "wr0ng"))
    assert "password authentication failed" in said and f"flowrl:***@127.0.0.1:{postgres.port}/postgres" in said
    assert "wr0ng" not in said and postgres.password not in said


def test_a_database_that_does_not_exist_and_a_server_that_is_down_are_named(tmp_path, monkeypatch, postgres):
    assert 'database "nowhere" does not exist' in _refused(tmp_path, monkeypatch, postgres.url("nowhere"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        said = _refused(tmp_path, monkeypatch, postgres.url("x").replace(str(postgres.port), str(port)))
    assert "Connection refused" in said and f"127.0.0.1:{port}" in said and "try again" in said
    assert postgres.password not in said


def test_a_registry_is_read_and_an_empty_database_beside_what_one_has_left_is_refused(
    tmp_path, monkeypatch, postgres_registry, postgres_database
):
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", postgres_registry)
    home = Home(tmp_path)
    with Registry.open(home) as registry, Registry.read(home) as reader:
        assert reader.uuid == registry.uuid and reader.library.relied_on() == []
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", postgres_database)
    assert Registry.read(home) is None
    home.version("left").mkdir(parents=True)
    for ask in (Registry.read, Registry.open):
        with pytest.raises(CorruptError, match="is empty, but .* contains versions/.*correct FLOWRL_REGISTRY_URL"):
            ask(home)


def test_a_registry_of_an_older_schema_is_migrated_by_who_reads_it(tmp_path, monkeypatch, postgres_database):
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", postgres_database)
    engine = make_engine(postgres_database)
    database.bring_up_to_date(Home(tmp_path), engine, head="0002")
    with Registry.read(Home(tmp_path)) as registry:
        assert registry.library.relied_on() == [] and database.revision(engine) == schema.HEAD
    engine.dispose()


def test_a_registry_goes_on_after_the_server_has_cut_its_connections(
    tmp_path, monkeypatch, postgres, postgres_registry
):
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", postgres_registry)
    with Registry.open(Home(tmp_path)) as registry:
        assert registry.campaigns.all() == []
        with postgres.connected() as admin:
            name = sa.make_url(postgres_registry).database
            cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
            assert admin.execute(cut, [name]).fetchone() >= (1,)
        assert registry.campaigns.all() == []


def test_a_read_sees_one_state_throughout(engine):
    uuid = sa.select(schema.meta.c.uuid)
    with reading(engine) as reader:
        before = reader.execute(uuid).scalar()
        with writing(engine) as writer:
            writer.execute(sa.update(schema.meta).values(uuid="another"))
        assert reader.execute(uuid).scalar() == before
    with reading(engine) as reader:
        assert reader.execute(uuid).scalar() == "another"


def test_a_writer_waits_for_the_one_before_it_but_not_for_ever(engine, other, monkeypatch):
    """A minute in truth."""
    with writing(engine):
        monkeypatch.setattr(database, "_BUSY_SECONDS", 1)
        with pytest.raises(StorageError, match="lock timeout"), writing(other):
            pytest.fail("two writers at once")


def test_a_writer_that_stopped_loses_the_lock_and_what_it_wanted_to_write(engine, other, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_SECONDS", 1)
    with pytest.raises(StorageError, match="nothing was changed"), writing(engine) as stopped:
        stopped.execute(sa.update(schema.meta).values(created_at=1.0))
        monkeypatch.undo()
        with writing(other) as second:
            second.execute(sa.update(schema.meta).values(created_at=2.0))
    with reading(engine) as tx:
        assert tx.execute(sa.select(schema.meta.c.created_at)).scalar() == 2.0
