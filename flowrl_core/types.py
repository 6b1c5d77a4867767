"""Types that several packages share."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Leaf", "Params"]

Leaf: TypeAlias = Any
"""A leaf of a record that crosses jit: a numpy array outside, a jax.Array inside."""

Params: TypeAlias = Any
"""A tree of network parameters; stacked over experts where a docstring says `[K, ...]`."""
