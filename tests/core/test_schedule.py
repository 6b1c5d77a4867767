"""Step size, looks and end of a run: every rule of the schedule, and that it always ends."""

import itertools
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.learning.schedule import annealed, look_level, look_target, look_window, next_action, next_look
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, TrainingSpec, read_parameters

SPEC = EvaluationSpec(
    threshold=0.75, looks=4, target=0.88, target_step=0.02, min_frames=100, min_episodes=1, window_growth=0
)


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
    targets = [look_target(k, 0, SPEC) for k in range(16)]
    assert targets == sorted(targets) and targets[-1] <= 0.97
    assert look_target(3, 0, SPEC.model_copy(update={"target": 0.99})) == 0.99


@given(
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0.01, 0.99),
    st.integers(0, 15),
    st.lists(st.integers(0, 10**8), min_size=2, max_size=8).map(sorted),
)
def test_the_target_falls_as_the_window_grows_but_not_below_the_threshold(target, fall, threshold, num_looks, frames):
    changes = {"target": target, "target_fall": fall, "threshold": threshold, "min_episodes": 64}
    spec = SPEC.model_copy(update={**changes, "window_growth": 4_096})
    targets = [look_target(num_looks, number, spec) for number in frames]
    assert targets == sorted(targets, reverse=True)
    assert all(min(target, threshold) <= one <= max(target, 0.97) for one in targets)
    assert all(look_target(num_looks, number, spec) >= look_target(0, number, spec) for number in frames)
    lowest = max(target - fall, min(target, threshold))
    assert look_target(0, 4 * 64 * 4_096, spec) == pytest.approx((target + lowest) / 2), "four times the episodes"
    assert look_target(0, 10**12, spec) == pytest.approx(lowest, abs=1e-3)


def test_a_success_that_is_enough_but_below_the_first_target_is_looked_at_before_the_end():
    looked = [n for n in range(0, 4_000_000, 2_048) if next_action(n, 4_000_000, 0.83, [], EvaluationSpec()) == "look"]
    assert looked and 1_000_000 < looked[0] < 2_500_000
    assert next_action(3_999_000, 4_000_000, 0.79, [], EvaluationSpec()) == "train"


def test_what_is_learned_early_is_looked_at_as_if_nothing_grew_or_fell():
    spec = EvaluationSpec()
    assert (look_window(262_144, spec), look_target(0, 262_144, spec)) == (spec.min_episodes, spec.target)
    assert next_look(262_144, 1, 4_000_000, spec) == 262_144 + spec.min_frames
    assert look_window(524_288, spec) == 2 * spec.min_episodes


@given(st.integers(300_000, 12_000_000), st.integers(12_000_000, 20_000_000), st.integers(2, 16))
def test_looks_that_fail_late_are_spread_over_the_rest_of_the_budget(first, budget, num_looks):
    spec = EvaluationSpec(looks=num_looks, min_frames=1)
    looks = [Looked(first, 0.7)]
    while len(looks) < num_looks:
        looks.append(Looked(next_look(looks[-1].frames, len(looks), budget, spec), 0.7))
    assert looks[-1].frames == pytest.approx(budget, abs=2 * num_looks), "the last is that of the budget's end"
    ratios = [after.frames / before.frames for before, after in itertools.pairwise(looks)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-3)


def test_a_look_that_failed_late_is_not_followed_by_another_at_once():
    looks = [Looked(729_088, 0.72)]
    again = next(
        n for n in range(729_088, 4_000_000, 2_048) if next_action(n, 4_000_000, 1.0, looks, EvaluationSpec()) == "look"
    )
    assert 1_200_000 < again < 1_300_000
    assert next_look(729_088, 1, 4_000_000, EvaluationSpec(window_growth=0)) == 729_088 + 16_384
    assert next_look(729_088, 1, 800_000, EvaluationSpec(min_frames=50_000)) == 729_088 + 50_000


def test_a_hopeless_run_takes_a_last_look_and_ends():
    looks = [Looked(200, 0.7)]
    assert next_action(5_000, 10_000, 0.0, looks, SPEC, is_hopeless=True) == "look"
    assert next_action(5_000, 10_000, 0.0, [*looks, Looked(5_000, 0.7)], SPEC, is_hopeless=True) == "failed"
    assert next_action(5_000, 10_000, 0.0, [*looks, Looked(5_000, 0.8)], SPEC, is_hopeless=True) == "learned"
    assert next_action(5_000, 10_000, 0.0, [*looks, Looked(5_000, 0.7)], SPEC) == "train"


@given(st.lists(st.integers(0, 30_000), min_size=2, max_size=8).map(sorted), st.floats(1e-3, 1), st.floats(1e-3, 1))
def test_learning_rate_and_entropy_weight_fall_to_their_final_shares_and_stay_there(frames, rate_share, entropy_share):
    spec = TrainingSpec(frames=10_000, final_learning_rate_share=rate_share, final_entropy_share=entropy_share)
    for field, share in ("learning_rate", rate_share), ("entropy_weight", entropy_share):
        start = getattr(spec, field)
        values = [getattr(annealed(spec, number), field) for number in (0, *frames, 10_000)]
        assert values[0] == start and values[-1] == pytest.approx(start * share)
        assert all(one >= later >= values[-1] for one, later in itertools.pairwise(values))
        assert getattr(annealed(spec, 5_000), field) == pytest.approx(start * math.sqrt(share))
    assert annealed(spec, 0) == spec


def test_what_an_earlier_version_recorded_trains_as_it_did():
    recorded = {"training": {"frames": 600_000, "learning_rate": 1e-3}, "evaluation": {}, "merge": "frozen"}
    read = SkillConfig.model_validate(read_parameters(recorded))
    assert (read.training.frames, read.merge) == (600_000, "frozen")
    assert all(annealed(read.training, frames) == read.training for frames in (0, 300_000, 600_000))
    chosen = {"training": {"final_learning_rate_share": 0.5}}
    assert SkillConfig.model_validate(read_parameters(chosen)).training.final_learning_rate_share == 0.5


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
