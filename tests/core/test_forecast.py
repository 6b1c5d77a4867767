"""Which runs end early as hopeless: rules on known curves, and the count on curves that were recorded."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.learning.forecast import Forecast, empty_curve, extended, forecast, is_hopeless, num_points

RECORDED = tomllib.loads((Path(__file__).parents[1] / "fixtures" / "curves.toml").read_text())["curve"]
BY_NAME = {one["name"]: one for one in RECORDED}
DEFAULT = 4.0
"""The default budget, in millions of frames."""
THRESHOLD = 0.75
EPISODES = 256


def ended(success, budget, *, known=1.0, seed=None):
    """The share of the budget at which the rule ends a run; None if it does not while the curve is known.

    Args:
        success: a function of the share of the budget; a number or one for each step.
        seed: of what chance adds; None: nothing.
    """
    chance = None if seed is None else np.random.default_rng(seed)
    curve = empty_curve(np.size(success(0.0)))
    for point in range(1, int(64 * known + 1e-9) + 1):
        before, frames = ((n * budget + 63) // 64 for n in (point - 1, point))
        now = np.atleast_1d(success(point / 64))
        curve = extended(
            curve, now if chance is None else chance.binomial(EPISODES, now) / EPISODES, before, frames, budget
        )
        if is_hopeless(forecast(curve, frames, budget), frames, budget, THRESHOLD):
            return point / 64
    return None


def replay(one, budget, seed=None):
    """Where the rule ends a recorded run under a budget in millions, and its best success after that within it."""
    frames, success = np.array(one["frames"]), np.array(one["success"])
    known = min(1.0, frames[-1] / budget)
    share = ended(lambda part: np.interp(part * budget, frames, success), round(budget * 1e6), known=known, seed=seed)
    later = success[(frames > (share or 0.0) * budget) & (frames <= budget)]
    return share, max(later, default=0.0)


def test_no_run_that_was_recorded_to_reach_the_threshold_is_ended():
    """Under its own budget, the default one, and one for the deepest skills; with and without noise."""
    wrong, right, total = [], 0, 0
    for one in RECORDED:
        for budget in sorted({one["budget"], DEFAULT, 13.0}):
            for seed in (None, *range(8)):
                share, later = replay(one, budget, seed)
                total += 1
                if share is not None and later >= THRESHOLD:
                    wrong.append((one["name"], budget, share))
                right += share is not None and later < THRESHOLD
    assert total > 500 and right > 80, (total, right)
    assert wrong == []


@pytest.mark.parametrize("name", ["eat_cow", "defeat_zombie", "eat_plant"])
@pytest.mark.parametrize("seed", range(5))
def test_what_never_works_ends_once_there_is_no_grace(name, seed):
    flat = BY_NAME[name] | {"frames": [0.0, 4.0], "success": [np.mean(BY_NAME[name]["success"])] * 2}
    assert 1 / 3 <= replay(flat, DEFAULT, seed)[0] <= 0.45
    assert 0.2 <= 0.6 * replay(flat, 0.6, seed)[0] <= 0.3, "not before 200,000 frames"
    assert replay(flat, 0.2, seed)[0] is None


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("coal")])
@pytest.mark.parametrize("budget", [1.2, 4.0, 8.0])
def test_coal_is_never_ended(name, budget):
    assert [replay(BY_NAME[name], budget, seed)[0] for seed in range(8)] == [None] * 8


@pytest.mark.parametrize("name", [name for name in BY_NAME if "steps" in BY_NAME[name]])
def test_a_run_whose_steps_were_recorded_and_that_learned_is_never_ended(name):
    """Also where the same curve fills a smaller budget."""
    steps = np.array(BY_NAME[name]["steps"])
    assert BY_NAME[name]["success"][-1] > THRESHOLD
    for points in (64, len(steps)):
        curve = empty_curve(steps.shape[1])
        for at, now in enumerate(steps):
            before, frames, budget = at * 62_500, (at + 1) * 62_500, points * 62_500
            curve = extended(curve, now, before, frames, budget)
            assert not is_hopeless(forecast(curve, frames, budget), frames, budget, THRESHOLD)


def test_a_plateau_far_below_the_threshold_ends_and_one_close_to_it_goes_on():
    assert ended(lambda share: 0.4, 4_000_000) == pytest.approx(1 / 3, abs=1 / 64)
    assert ended(lambda share: min(0.55, share), 9_000_000) < 0.9
    assert ended(lambda share: 0.72, 4_000_000, known=0.9) is None


def test_a_curve_that_rises_steadily_is_left_alone():
    for seed in range(8):
        assert ended(lambda share: 0.8 * share, 4_000_000, seed=seed) is None
        assert ended(lambda share: 0.8 / (1 + np.exp((0.5 - share) / 0.1)), 4_000_000, seed=seed) is None


def test_a_deep_plan_is_judged_by_its_steps_while_its_own_success_is_nothing():
    """Each of eleven steps is first reached when the one before works a little, and learned within a tenth."""
    begins = np.arange(11) / 20

    def steps(share):
        return np.where(share > begins, 0.98 * (1 - np.exp(-np.maximum(share - begins, 0.0) / 0.05)), np.nan)

    def product(share):
        return np.nanprod(steps(share)) if share > begins[-1] else 0.0

    assert product(0.5) == 0.0 and product(1.0) > THRESHOLD
    assert ended(steps, 4_000_000) is None
    assert ended(product, 4_000_000) is not None, "or this shows nothing"

    def stuck(share):
        return np.array([*steps(share)[:3], 0.0])

    assert ended(stuck, 4_000_000) <= 0.45, "one step that never works is enough"


def test_a_step_that_is_hardly_known_counts_as_certain():
    curve = empty_curve(2)
    for point in range(32):
        steps = np.array([0.95, np.nan if point < 28 else 0.0])
        curve = extended(curve, steps, point * 10_000, (point + 1) * 10_000, 640_000)
    found = forecast(curve, 320_000, 640_000)
    assert found.final > 0.9 and found.now == 0.0


def test_nothing_is_said_of_a_run_that_nothing_is_known_of():
    assert forecast(empty_curve(3), 600_000, 640_000) is None
    assert not is_hopeless(None, 600_000, 640_000, THRESHOLD)


def test_the_forecast_at_the_end_ends_nothing():
    assert ended(lambda share: 0.0 if share == 1.0 else 0.9, 640_000) is None


def odds(success):
    """The log-odds in which lines are fitted."""
    return np.log((success + 0.01) / (1 - success + 0.01))


def final_of(*curves):
    """The forecast at half of the budget for steps whose log-odds at the 32 points so far are these."""
    success = 1.02 / (1 + np.exp(-np.array(curves))) - 0.01
    curve = empty_curve(len(curves))
    curve[:32] = success.T
    return forecast(curve, 320_000, 640_000).final


def test_forecasts_of_known_curves_are_known_numbers():
    gain, at = 0.3, np.arange(32)  # half of what annealing brings over a whole budget
    assert odds(final_of(np.zeros(32))) == pytest.approx(gain)
    assert final_of(np.zeros(32), np.ones(32)) == pytest.approx(final_of(np.zeros(32)) * final_of(np.ones(32)))
    assert odds(final_of(-2 + at / 31)) == pytest.approx(-2 + 63 / 31 + gain), "the line goes on to the last point"
    assert odds(final_of(1 - at / 31)) == pytest.approx(gain), "a curve that falls stays where it is"
    late = np.where(at < 24, 0.0, (at - 23) / 20)
    assert odds(final_of(late)) == pytest.approx((63 - 23) / 20 + gain), "the last quarter rises faster"
    early = np.where(at < 24, at / 20, 23 / 20)
    assert odds(final_of(early)) > 23 / 20 + gain + 0.1, "the last half rises, the last quarter does not"


def test_noise_makes_a_forecast_more_favourable_by_two_standard_errors_of_level_and_slope():
    noise = np.where(np.arange(32) % 2, 0.1, -0.1)
    ends = []
    for size in (8, 16):
        at = np.arange(size) - (size - 1) / 2
        slope = (at * noise[-size:]).sum() / (at**2).sum()
        error = np.sqrt(((noise[-size:] - slope * at) ** 2).sum() / (size - 2))
        level = slope * at[-1] + 2 * error / np.sqrt(size)
        ends.append(level + (slope + 2 * error / np.sqrt((at**2).sum())) * 32)
    assert odds(final_of(noise)) == pytest.approx(max(ends) + 0.3)


def test_the_grace_is_over_at_exactly_a_third_of_the_budget():
    found = Forecast(0.0, 0.0)
    assert is_hopeless(found, 400_000, 1_200_000, THRESHOLD)
    assert not is_hopeless(found, 399_999, 1_200_000, THRESHOLD)
    assert is_hopeless(found, 200_000, 300_000, THRESHOLD) and not is_hopeless(found, 199_999, 300_000, THRESHOLD)


@given(st.lists(st.floats(0, 1), min_size=64, max_size=64), st.integers(1, 64))
def test_a_forecast_is_a_success_of_what_was_known_by_then(values, points):
    curve = np.array(values)[:, None]
    found = forecast(curve, points * 10_000, 640_000)
    assert 0 <= found.final <= 1 and found.now == values[points - 1]
    later = curve.copy()
    later[points:] = 1 - later[points:]
    assert forecast(later, points * 10_000, 640_000) == found


@given(st.integers(1, 10**7), st.lists(st.integers(1, 10**6), min_size=1, max_size=100))
def test_each_64th_of_a_budget_gets_one_point_whatever_the_size_of_updates(budget, updates):
    curve, frames = empty_curve(1), 0
    for number, size in enumerate(updates):
        curve = extended(curve, np.array([number / 100]), frames, frames + size, budget)
        frames += size
        known = num_points(frames, budget)
        assert np.isfinite(curve[:known]).all() and np.isnan(curve[known:]).all()
    assert (np.diff(curve[:known, 0]) >= 0).all()
