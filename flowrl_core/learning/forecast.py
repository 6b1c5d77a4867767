"""Whether a run can still reach its threshold: a forecast from its own curve, optimistic on purpose. No JAX here.

Ending a run that would have learned costs a skill; going on with one that will not costs some frames. So the forecast
takes the most favourable that the curve allows, and a curve that rises is left alone. Each step of the plan has a curve
of its own: while the last steps of a deep plan are hardly reached, its end-to-end success is flat and says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "WINDOW_ATTEMPTS",
    "WINDOW_EPISODES",
    "Forecast",
    "empty_curve",
    "extended",
    "forecast",
    "is_hopeless",
    "num_points",
]

WINDOW_EPISODES = 256
"""Ended episodes that a point of the curve is the average of, if there are as many."""
WINDOW_ATTEMPTS = 32
"""A step with fewer attempts among them is unknown."""

_POINTS = 64
_GRACE_SHARE = 1 / 3
_GRACE_FRAMES = 200_000
_FEWEST_POINTS = 8
_ERRORS = 2.0
_MARGIN = 0.05
"""A forecast that misses the threshold by less ends nothing: its run may just as well reach it."""
_FLOOR = 0.01
"""Added to success and failure, so that the chance successes of a skill that never works are no trend."""
_ANNEALING = 0.6
"""Gain in log-odds over a whole budget that falling step size and entropy bring on top of the trend: from .70 to .81.

Measured: a plateau of .68 became .80 as they fell, and .75 became .85."""


@dataclass(frozen=True)
class Forecast:
    """The training success of a run now, and the most that it can be expected to have at the end of the budget."""

    now: float
    final: float


def empty_curve(num_steps: int) -> np.ndarray:
    """Return the curve at a run's start: f64[64, S], the steps' success at each 64th of the budget; all NaN."""
    return np.full((_POINTS, num_steps), np.nan)


def num_points(frames: int, budget: int) -> int:
    """Return how many 64ths of the budget are used."""
    return min(_POINTS, frames * _POINTS // budget)


def extended(curve: np.ndarray, steps: np.ndarray, before: int, frames: int, budget: int) -> np.ndarray:
    """Return the curve after an update, with `steps` at each 64th of the budget that it passed.

    Args:
        steps: f64[S] success of each step now; NaN if it is not known.
        before, frames: of the run before and after the update.
    """
    after = curve.copy()
    after[num_points(before, budget) : num_points(frames, budget)] = steps
    return after


def forecast(curve: np.ndarray, run_frames: int, budget: int) -> Forecast | None:
    """Return the most favourable forecast at these frames; None if nothing of the curve is known.

    It is the product of the steps' forecasts; a step known at fewer than 8 points counts as certain. In log-odds, in
    which success first grows along a line and then levels off at 1, lines are fitted to the last quarter and the last
    half of a step's curve. Each is continued to the end of the budget from two standard errors above where it is now,
    with its slope plus two standard errors (never falling), plus what annealing may still bring. The higher end counts.
    """
    passed = num_points(run_frames, budget)
    finals, now = [], []
    for curve_of_step in curve[:passed].T:
        (known,) = np.nonzero(~np.isnan(curve_of_step))
        if known.size:
            now.append(curve_of_step[known[-1]])
            finals.append(_final(known, curve_of_step[known], passed))
    return Forecast(float(np.prod(now)), float(np.prod(finals))) if now else None


def is_hopeless(found: Forecast | None, run_frames: int, budget: int, threshold: float) -> bool:
    """Whether a run may end early: even the forecast clearly misses the threshold, and enough was tried to say so.

    Never before a third of the budget and 200,000 frames, nor at the end of the budget, where nothing is left to save.
    """
    is_judged = max(_GRACE_SHARE * budget, _GRACE_FRAMES) <= run_frames < budget
    return found is not None and is_judged and found.final < threshold - _MARGIN


def _final(place: np.ndarray, success: np.ndarray, passed: int) -> float:
    """Return the most that a step's success may be at the end."""
    if place.size < _FEWEST_POINTS:
        return 1.0
    odds = np.log((success + _FLOOR) / (1 - success + _FLOOR))
    sizes = (max(_FEWEST_POINTS, place.size // 4), max(_FEWEST_POINTS, place.size // 2))
    best = max(_end(place[-size:], odds[-size:]) for size in sizes) + _ANNEALING * (1 - passed / _POINTS)
    return float(np.clip((1 + 2 * _FLOOR) / (1 + np.exp(-best)) - _FLOOR, 0.0, 1.0))


def _end(place: np.ndarray, odds: np.ndarray) -> float:
    """Return the most that the line through the points may be at the last place, in log-odds."""
    centred = place - place.mean()
    spread = float((centred**2).sum())
    slope = float((centred * odds).sum()) / spread
    error = float(np.sqrt(((odds - odds.mean() - slope * centred) ** 2).sum() / (place.size - 2)))
    now = odds.mean() + slope * centred[-1] + _ERRORS * error / np.sqrt(place.size)
    return float(now + max(0.0, slope + _ERRORS * error / np.sqrt(spread)) * (_POINTS - 1 - place[-1]))
