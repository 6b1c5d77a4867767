"""One embedded Prefect for all tests that need a real server and real workers: its start is nearly all it costs.

And one PostgreSQL server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import postgres_server

from flowrl_cli.server import embedded
from flowrl_cli.server.connection import connected
from flowrl_cli.server.processes import marked
from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home

_LONGEST_FIRST = ("flows", "cli", "tasks", "core")
_SERVERS = {"server", "postgres", "postgres_database", "postgres_registry"}
"""Fixtures, and the parameters that choose them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: or one process would go on with it while the other has nothing left to do.

    And what needs a server is marked, so that `make quick` can leave it out.
    """
    folders = {name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: folders.get(item.path.parent.name, len(folders)))
    for item in items:
        if _needs_server(item):
            item.add_marker("server")


def _needs_server(item: pytest.Item) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    used = {*getattr(item, "fixturenames", ()), *(one for one in parameters if isinstance(one, str))}
    return bool(used & _SERVERS) or item.get_closest_marker("real_llm") is not None


@dataclass(frozen=True)
class Running:
    """A home whose embedded Prefect is up, with workers for both pools; clients of this process talk to it.

    Attributes:
        crash_file: FLOWRL_CRASH_FILE of all its processes.
    """

    home: Home
    url: str
    crash_file: Path


@pytest.fixture(scope="session", autouse=True)
def slots_directory(tmp_path_factory) -> Iterator[Path]:
    """Device slots of the tests' own: other work on this machine neither waits for them nor is waited for."""
    directory = tmp_path_factory.mktemp("slots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWRL_SLOTS_DIR", str(directory))
        # Set by readline in a process that starts the tests' own, and wider than what a test looks at.
        for name in ("COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        yield directory


@pytest.fixture(scope="session")
def server(tmp_path_factory, slots_directory, compiled) -> Iterator[Running]:
    home = Home(tmp_path_factory.mktemp("embedded") / "a home für tests")
    crash_file = tmp_path_factory.mktemp("crash") / "file"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PREFECT_", "FLOWRL_")):
                patch.delenv(name)
        patch.setenv("FLOWRL_SLOTS_DIR", str(slots_directory))
        patch.setenv("FLOWRL_CRASH_FILE", str(crash_file))
        patch.setenv("PREFECT_HOME", str(home.prefect))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        home.root.mkdir()
        home.cache.symlink_to(compiled)
        started = embedded.up(home, keep=True)
    record = Record.load(home)
    assert record is not None
    try:
        with connected(started), pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLOWRL_CRASH_FILE", str(crash_file))  # of workers that tests start again, too
            yield Running(home, started.url, crash_file)
    finally:
        embedded.down(home)
    assert marked(record.mark) == []
    assert not home.embedded.exists()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the test processes of this session, each of which has a server and a home, compile once for all of them."""
    base = tmp_path_factory.getbasetemp()
    compiled = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    compiled.mkdir(exist_ok=True)
    return compiled


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """A PostgreSQL server of the session's own."""
    try:
        with postgres_server.running() as started:
            yield started
    except postgres_server.NoPostgresError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def postgres_database(postgres: postgres_server.PostgresServer) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)
