"""The smoothed training success."""

import math

import numpy as np

from flowrl_core.learning.success import SuccessWindow, empty_window


def fed(rows):
    window = empty_window(4)
    for attempts, successes, episodes in rows:
        window.add(np.array(attempts), np.array(successes), episodes)
    return window


def test_no_finished_episode_gives_nan():
    assert math.isnan(empty_window(4).success(1, 1))
    assert math.isnan(fed([([0, 0, 0, 0], [0, 0, 0, 0], 0)] * 70).success(2, 1))


def test_success_is_the_product_of_the_steps():
    window = fed([([10, 8, 0, 0], [8, 4, 0, 0], 10)] * 4)
    assert window.success(2, 20) == 0.8 * 0.5


def test_too_few_episodes_say_nothing():
    rows = [([3, 0, 0, 0], [3, 0, 0, 0], 3)] * 4
    assert math.isnan(fed(rows).success(1, 13))
    assert fed(rows).success(1, 12) == 1.0


def test_old_updates_are_forgotten_as_soon_as_the_new_ones_hold_enough():
    window = fed([([50, 0, 0, 0], [0, 0, 0, 0], 50)] * 10 + [([50, 0, 0, 0], [50, 0, 0, 0], 50)] * 4)
    assert window.success(1, 64) == 1.0


def test_a_window_survives_the_way_through_a_checkpoint():
    window = fed([([10, 8, 1, 0], [8, 4, 1, 0], 10)] * 9)
    again = SuccessWindow.from_dict({k: np.asarray(v) for k, v in window.as_dict().items()})
    assert again.success(2, 20) == window.success(2, 20) and again.num_updates == 9
