"""One of the crash points through a real server and worker; `make faults` has all of them."""

import pytest
from faults import CASES, Disturbed, named_points


@pytest.fixture(scope="module")
def disturbed(server, registry):
    return Disturbed(server.home, registry, server.crash_file)


def test_every_crash_point_is_among_those_that_are_tried():
    # Housekeeping is no part of a campaign, and no model is asked here: those points are passed in tests/core.
    rounds = {"after_model_answer", "after_model_record", "before_round_record", "after_round_record"}
    elsewhere = {"before_removal", "before_reflection_record", *rounds}
    assert named_points() - elsewhere == {point.partition(":")[0] for point, _ in CASES}


def test_a_campaign_disturbed_at_a_crash_point_reaches_its_end(disturbed):
    case = ("after_submission", "who passes")
    assert case in CASES
    disturbed.survives(*case)
