"""Confidence bounds of a success rate. No JAX here."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["wilson_lower", "wilson_upper"]


def wilson_lower(successes: int, episodes: int, level: float) -> float:
    """Return the one-sided lower bound of a success rate at error level `level` (Wilson's score interval, 1927)."""
    return _wilson(successes, episodes, NormalDist().inv_cdf(level))


def wilson_upper(successes: int, episodes: int, level: float) -> float:
    """Return the one-sided upper bound of a success rate at error level `level` (Wilson's score interval, 1927)."""
    return _wilson(successes, episodes, -NormalDist().inv_cdf(level))


def _wilson(successes: int, episodes: int, z: float) -> float:
    p = successes / episodes
    centre = p + z * z / (2 * episodes)
    spread = z * math.sqrt(p * (1 - p) / episodes + z * z / (4 * episodes * episodes))
    return min(1.0, max(0.0, (centre + spread) / (1 + z * z / episodes)))
