"""What the tests of flows share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowrl_core.storage.registry import Registry

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def registry(server):
    with Registry.open(server.home) as registry:
        yield registry
