"""The training success, smoothed over the last updates, from counts. No JAX here.

The estimate decides when to look, never whether a skill is learned: it is optimistic, since successful attempts end
sooner than failed ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["SuccessWindow", "empty_window"]

_LENGTH = 64
_FEWEST_UPDATES = 4
_LEAST_PRACTICE = 0.02


@dataclass
class SuccessWindow:
    """Counts of the last 64 updates, the newest last.

    Attributes:
        attempts, successes: i64[64, S] finished and successful attempts at each plan step.
        episodes: i64[64] ended episodes that began in a world.
        num_updates: total number of updates seen.
    """

    attempts: np.ndarray
    successes: np.ndarray
    episodes: np.ndarray
    num_updates: int

    def add(self, attempts: np.ndarray, successes: np.ndarray, episodes: int) -> None:
        """Add the counts of one update."""
        for ring, new in ((self.attempts, attempts), (self.successes, successes), (self.episodes, episodes)):
            ring[:-1] = ring[1:]
            ring[-1] = new
        self.num_updates += 1

    def steps(self, num_steps: int, min_episodes: int, *, min_attempts: int = 1) -> np.ndarray:
        """Return the success f64[num_steps] of each plan step over the most recent updates.

        NaN for a step with fewer than `min_attempts`. It uses the fewest updates that hold `min_episodes` ended
        episodes and as many attempts at the last step.
        """
        length = self._length(num_steps, min_episodes)
        attempts = self.attempts[-length:, :num_steps].sum(0)
        successes = self.successes[-length:, :num_steps].sum(0)
        return np.where(attempts >= min_attempts, successes / np.maximum(attempts, 1), np.nan)

    def failing(self, num_steps: int) -> np.ndarray:
        """Return how often each step fails over the whole window, f64[S], plus 0.02; 1.02 for a step not tried.

        0 for the first step and those after the last one: no practice begins there.
        """
        attempts, successes = self.attempts.sum(0), self.successes.sum(0)
        rate = np.where(attempts > 0, 1 - successes / np.maximum(attempts, 1), 1.0)
        number = np.arange(rate.size)
        return np.where((number > 0) & (number < num_steps), rate + _LEAST_PRACTICE, 0.0)

    def success(self, num_steps: int, min_episodes: int, *, window: int = 0) -> float:
        """Return the product of the steps' successes; NaN until enough episodes and last-step attempts have ended.

        Args:
            min_episodes: what is enough.
            window: ended episodes and last-step attempts to average over, if there are more.
        """
        window = max(window, min_episodes)
        length = self._length(num_steps, window)
        too_few = (
            self.episodes[-length:].sum() < min_episodes or self.attempts[-length:, num_steps - 1].sum() < min_episodes
        )
        if too_few or self.num_updates < _FEWEST_UPDATES:
            return math.nan
        return float(np.prod(self.steps(num_steps, window)))

    def as_dict(self) -> dict[str, np.ndarray]:
        """Return the window as arrays, for a checkpoint; `from_dict` is its inverse."""
        return {
            "attempts": self.attempts,
            "successes": self.successes,
            "episodes": self.episodes,
            "num_updates": np.asarray(self.num_updates),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, np.ndarray]) -> SuccessWindow:
        """Return the window described by the result of `as_dict`."""
        counts = {name: np.array(data[name], np.int64) for name in ("attempts", "successes", "episodes")}
        return cls(**counts, num_updates=int(data["num_updates"]))

    def _length(self, num_steps: int, min_episodes: int) -> int:
        episodes = np.cumsum(self.episodes[::-1])
        tries = np.cumsum(self.attempts[::-1, num_steps - 1])
        (enough,) = np.nonzero((episodes >= min_episodes) & (tries >= min_episodes))
        first = int(enough[0]) + 1 if enough.size else _LENGTH
        return min(max(first, _FEWEST_UPDATES), _LENGTH)


def empty_window(max_steps: int) -> SuccessWindow:
    """Return a window that has seen no update."""
    counts = np.zeros((_LENGTH, max_steps), np.int64)
    return SuccessWindow(counts, counts.copy(), np.zeros(_LENGTH, np.int64), 0)
