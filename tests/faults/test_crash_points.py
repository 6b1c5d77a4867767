"""Every crash point through a real server and worker (`make faults`; a quarter of an hour)."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "flows"))

from faults import CASES, Disturbed

from flowrl_core.storage.registry import Registry


@pytest.fixture(scope="module")
def disturbed(server):
    with Registry.open(server.home) as registry:
        yield Disturbed(server.home, registry, server.crash_file)


@pytest.mark.parametrize("case", CASES, ids=" by ".join)
def test_a_campaign_disturbed_at_a_crash_point_reaches_its_end(disturbed, case):
    disturbed.survives(*case)
