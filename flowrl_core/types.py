"""Types that several packages share."""

from __future__ import annotations

import enum
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["FailedEnds", "Leaf", "MergeAction", "MergePolicy", "Params", "View"]

Leaf: TypeAlias = Any
"""A leaf of a record that crosses jit: a numpy array outside, a jax.Array inside."""

Params: TypeAlias = Any
"""A tree of network parameters; stacked over experts where a docstring says `[K, ...]`."""

MergePolicy: TypeAlias = Literal["most_frames", "evaluated", "frozen"]
"""How a learned run moves the head of an expert that it shares; see `skills.merging.decide`."""

MergeAction: TypeAlias = Literal["new", "updated", "kept"]
"""What happens to the head of an expert when a run ends."""


class View(enum.IntFlag):
    """What an expert sees: what the player sees, or that and more. It keeps the view that it was trained with."""

    PLAIN = 0
    CANONICAL = 1
    """Views that differ by a symmetry of the environment are one (`envs.adapter.Adapter.canonical`)."""
    COMPASS = 2
    """Told where to look for a target that is out of view (`envs.chart`)."""


class FailedEnds(NamedTuple):
    """The failed episodes of one plan step, counted by how they ended (in `learning.evaluation`: one array for each).

    Attributes:
        died: the player died.
        timed_out: the episode reached its limit.
        stranded: the player lacked what later steps need, and the step could not gain it.
    """

    died: Any
    timed_out: Any
    stranded: Any = 0
