"""One embedded Prefect for all tests that need a real server and real workers: its start is nearly all it costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

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


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Running]:
    home = Home(tmp_path_factory.mktemp("embedded") / "a home für tests")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PREFECT_", "FLOWRL_")):
                patch.delenv(name)
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
