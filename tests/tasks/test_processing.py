"""How a skill's flow run says what came of it."""

import pytest

from flowrl_core.stages.skill.process import RunOutcome
from tasks.skill import processing


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What the progress bars show at the end, instead of a server's."""
    words = []
    monkeypatch.setattr(processing, "end_progress", words.append)
    return words


def test_a_run_without_hope_ends_completed_and_says_so_in_its_state_and_its_progress_bar(shown):
    reason = "hopeless: at 1,376,256 of 4,000,000 frames its success was 0.00"
    state = processing.final_state(RunOutcome("failed", (), 0.002, 0.0, 1_376_256, reason))
    assert (state.is_completed(), state.name) == (True, "NotLearned")
    assert state.message == f"success 0.002, lower bound 0.000, 1376256 frames; {reason}"
    assert shown == [f"failed: {state.message}"]


def test_a_learned_skill_has_its_figures_alone():
    state = processing.final_state(RunOutcome("learned", (), 0.9, 0.85, 20_480, ""))
    assert (state.name, state.message) == ("Learned", "success 0.900, lower bound 0.850, 20480 frames")
