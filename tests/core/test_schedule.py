"""When to look and when to stop: every rule of the schedule, and that it always ends."""

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.learning.schedule import look_level, look_target, next_action
from flowrl_core.specs.skill import EvaluationSpec

SPEC = EvaluationSpec(threshold=0.75, looks=4, target=0.88, target_step=0.02, min_frames=100, min_episodes=1)


@dataclass(frozen=True)
class Looked:
    frames: int
    lower_bound: float


def test_nan_is_never_a_success():
    assert next_action(5_000, 10_000, math.nan, [], SPEC) == "train"


def test_a_crossing_leads_to_a_look_after_the_minimum_of_frames():
    assert next_action(99, 10_000, 0.9, [], SPEC) == "train"
    assert next_action(100, 10_000, 0.9, [], SPEC) == "look"


def test_after_a_failed_look_training_goes_on_with_a_higher_target():
    looks = [Looked(200, 0.7)]
    assert next_action(200, 10_000, 0.95, looks, SPEC) == "train"
    assert next_action(300, 10_000, 0.89, looks, SPEC) == "train"
    assert next_action(300, 10_000, 0.90, looks, SPEC) == "look"


def test_one_look_is_kept_for_the_last_frame():
    looks = [Looked(f, 0.7) for f in (200, 400, 600)]
    assert next_action(9_999, 10_000, 1.0, looks, SPEC) == "train"
    assert next_action(10_000, 10_000, 0.0, looks, SPEC) == "look"
    assert next_action(10_000, 10_000, 1.0, [*looks, Looked(10_000, 0.7)], SPEC) == "failed"


def test_a_look_at_the_last_frame_is_not_repeated():
    assert next_action(10_000, 10_000, math.nan, [Looked(10_000, 0.1)], SPEC) == "failed"


def test_only_a_bound_that_reaches_the_threshold_is_learned():
    assert next_action(300, 10_000, 1.0, [Looked(300, 0.7499)], SPEC) == "train"
    assert next_action(300, 10_000, 0.0, [Looked(300, 0.75)], SPEC) == "learned"


def test_the_level_is_shared_by_the_looks():
    assert look_level(SPEC) * SPEC.looks == SPEC.level


def test_the_target_never_falls_and_stays_reachable():
    targets = [look_target(k, SPEC) for k in range(16)]
    assert targets == sorted(targets) and targets[-1] <= 0.97
    assert look_target(3, SPEC.model_copy(update={"target": 0.99})) == 0.99


@given(st.lists(st.floats(0, 1), min_size=200, max_size=200), st.floats(0, 0.74), st.integers(1, 16))
def test_a_run_that_does_not_learn_ends_after_at_most_its_looks_and_its_budget(successes, bound, num_looks):
    spec = SPEC.model_copy(update={"looks": num_looks})
    looks, frames = [], 0
    for success in successes:
        action = next_action(frames, 10_000, success, looks, spec)
        if action == "look":
            looks.append(Looked(frames, bound))
        elif action == "train":
            frames += 100
        else:
            break
    assert action == "failed"
    assert len(looks) <= num_looks and looks[-1].frames == 10_000
