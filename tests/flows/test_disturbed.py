"""One of the crash points through a real server and worker; `make faults` has all of them."""

import pytest
from faults import CASES, Disturbed, named_points


@pytest.fixture(scope="module")
def disturbed(server, registry):
    return Disturbed(server.home, registry, server.crash_file)


def test_every_crash_point_is_among_those_that_are_tried():
    # Housekeeping, restoring and sealing are no part of a campaign, and no model is asked here: tests/core passes
    # those points.
    rounds = {"after_model_answer", "after_model_record", "before_round_record", "after_round_record"}
    restorations = {"restored_files", "restored_directory", "restored_registry"}
    sealing = {"before_sealed_rename", "after_sealed_rename"}
    elsewhere = {"before_removal", "before_reflection_record", *rounds, *restorations, *sealing}
    assert named_points() - elsewhere == {point.partition(":")[0] for point, _ in CASES}


def test_a_campaign_disturbed_at_a_crash_point_reaches_its_end(disturbed):
    case = ("after_submission", "who passes")
    assert case in CASES
    disturbed.survives(*case)
