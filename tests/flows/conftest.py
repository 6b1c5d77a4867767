"""What the tests of flows share: registries, and a browser for those that look at Prefect's pages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrl_core.storage.registry import Registry

sys.path.append(str(Path(__file__).parent))

import debian
import flow_runs


@pytest.fixture(scope="module")
def registry(server):
    with Registry.open(server.home) as registry:
        yield registry


@pytest.fixture(scope="session")
def learned(server) -> Iterator[Registry]:
    """The registry of the server's home, in which the campaign `basics` has learned dig_a, with experts of width 16."""
    with Registry.open(server.home) as registry:
        run = flow_runs.start(registry, flow_runs.spec("basics", "dig_a"))
        assert flow_runs.end_of(run).is_completed()
        yield registry


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's chromium, which is installed if need be."""
    if not shutil.which("chromium"):
        if not debian.can_install():
            pytest.skip("no chromium here, and nobody to install it: `apt-get install chromium` as root")
        debian.install("chromium")
    return shutil.which("chromium") or ""
