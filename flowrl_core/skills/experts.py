"""The remap between the library's global expert indices and a run's local ones, and slices of stacked experts.

Trees are nested dicts, lists and tuples with array leaves. A stacked tree has leaves `[K, ...]`: one row per expert.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from flowrl_core.errors import InputError

__all__ = ["Remap", "build_remap", "expert_slice", "stack_experts", "take"]


@dataclass(frozen=True)
class Remap:
    """A frozen one-to-one map, in the same order, between global indices and the local indices 0..K-1 of one run.

    Raises:
        InputError: a local index is not the rank of its global one.
    """

    global_to_local: Mapping[int, int]

    def __post_init__(self) -> None:
        ranked = {index: rank for rank, index in enumerate(sorted(self.global_to_local))}
        if dict(self.global_to_local) != ranked or any(index < 0 for index in ranked):
            problem = f"{dict(self.global_to_local)} does not map sorted indices to their ranks"
            raise InputError("remap", problem, f"Use {ranked}")
        object.__setattr__(self, "global_to_local", MappingProxyType(ranked))

    @property
    def local_to_global(self) -> Mapping[int, int]:
        """The inverse map."""
        return MappingProxyType({local: index for index, local in self.global_to_local.items()})

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return the remap as JSON-ready data (with string keys); `from_dict` is the inverse."""
        return {
            "global_to_local": {str(k): v for k, v in self.global_to_local.items()},
            "local_to_global": {str(k): v for k, v in self.local_to_global.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, int]]) -> Remap:
        """Return the remap from the output of `as_dict`."""
        return cls({int(k): v for k, v in data["global_to_local"].items()})


def build_remap(global_indices: Collection[int]) -> Remap:
    """Return the remap of a run's experts: the local index is the rank of the global one.

    Raises:
        InputError: a duplicate or negative index.
    """
    ranked = sorted(global_indices)
    twice = sorted({a for a, b in zip(ranked, ranked[1:], strict=False) if a == b})
    if twice:
        raise InputError("remap", f"expert {twice[0]} appears twice", "Name each expert of the run only once")
    return Remap({index: rank for rank, index in enumerate(ranked)})


def take(stacked: Any, local: int) -> np.ndarray:
    """Return a copy of row `local` of an array `[K, ...]`.

    Raises:
        IndexError: there is no such row; negative indices are not allowed.
    """
    rows = np.asarray(stacked)
    if not 0 <= local < rows.shape[0]:
        raise IndexError(f"expert {local} of {rows.shape[0]}")
    return rows[local].copy()


def expert_slice(stacked: Any, local: int) -> Any:
    """Return the tree of one expert from a stacked tree: row `local` of every leaf, bit for bit."""
    if isinstance(stacked, Mapping):
        return {key: expert_slice(value, local) for key, value in stacked.items()}
    if isinstance(stacked, list | tuple):
        return type(stacked)([expert_slice(value, local) for value in stacked])
    return take(stacked, local)


def stack_experts(trees: Sequence[Any], capacity: int) -> Any:
    """Return the stacked tree with leaves `[capacity, ...]`: the experts in order, then rows of zeros.

    Raises:
        InputError: no expert, more than `capacity`, or trees that differ in structure, shape or dtype.
    """
    if not 0 < len(trees) <= capacity:
        raise InputError("max_experts", f"{len(trees)} experts for {capacity} places", "Make room for all experts")
    first, structure = trees[0], _structure(trees[0])
    for tree in trees:
        if _structure(tree) != structure:
            problem = "they differ in structure, shape or dtype"
            raise InputError("experts", problem, "Use experts of one width and environment")
    if isinstance(first, Mapping):
        return {key: stack_experts([tree[key] for tree in trees], capacity) for key in first}
    if isinstance(first, list | tuple):
        return type(first)([stack_experts(list(leaves), capacity) for leaves in zip(*trees, strict=True)])
    leaves = [np.asarray(tree) for tree in trees]
    padding = [np.zeros_like(leaves[0])] * (capacity - len(trees))
    return np.stack(leaves + padding)


def _structure(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _structure(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_structure(value) for value in tree]
    leaf = np.asarray(tree)
    return leaf.shape, leaf.dtype
