"""One embedded Prefect for all tests that need a real server and real workers: its start is nearly all it costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowrl_cli import embedded
from flowrl_cli.processes import marked
from flowrl_cli.record import Record
from flowrl_core.storage.layout import Home


@dataclass(frozen=True)
class Running:
    """A home whose embedded Prefect is up, with workers for both pools; clients of this process talk to it."""

    home: Home
    url: str


@pytest.fixture(scope="session", autouse=True)
def slots_directory(tmp_path_factory) -> Iterator[Path]:
    """Device slots of the tests' own: other work on this machine neither waits for them nor is waited for."""
    directory = tmp_path_factory.mktemp("slots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWRL_SLOTS_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def server(tmp_path_factory, slots_directory) -> Iterator[Running]:
    home = Home(tmp_path_factory.mktemp("embedded") / "a home für tests")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PREFECT_", "FLOWRL_")):
                patch.delenv(name)
        patch.setenv("FLOWRL_SLOTS_DIR", str(slots_directory))
        patch.setenv("PREFECT_HOME", str(home.prefect))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        started = embedded.up(home, keep=True)
    record = Record.load(home)
    assert record is not None
    try:
        with embedded.connected(started):
            yield Running(home, started.url)
    finally:
        embedded.down(home)
    assert marked(record.mark) == []
    assert not home.embedded.exists()
