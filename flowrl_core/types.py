"""Types that several packages share."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

__all__ = ["Leaf", "MergeAction", "MergePolicy", "Params"]

Leaf: TypeAlias = Any
"""A leaf of a record that crosses jit: a numpy array outside, a jax.Array inside."""

Params: TypeAlias = Any
"""A tree of network parameters; stacked over experts where a docstring says `[K, ...]`."""

MergePolicy: TypeAlias = Literal["most_frames", "evaluated", "frozen"]
"""How a learned run moves the head of an expert that it shares; see `skills.merging.decide`."""

MergeAction: TypeAlias = Literal["new", "updated", "kept"]
"""What happens to the head of an expert when a run ends."""
