"""Experts: remaps are one to one and in order, slices are exact."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.errors import InputError
from flowrl_core.skills.experts import Remap, build_remap, expert_slice, stack_experts, take

INDICES = st.lists(st.integers(0, 500), unique=True, max_size=40)


@given(INDICES)
def test_a_remap_is_one_to_one_and_keeps_the_order(indices: list[int]) -> None:
    remap = build_remap(indices)
    ranked = sorted(indices)
    assert [remap.global_to_local[index] for index in ranked] == list(range(len(ranked)))
    assert all(remap.local_to_global[remap.global_to_local[index]] == index for index in indices)


@given(INDICES)
def test_a_remap_survives_json(indices: list[int]) -> None:
    remap = build_remap(indices)
    assert Remap.from_dict(json.loads(json.dumps(remap.as_dict()))) == remap


def test_a_duplicate_index_is_refused_by_number() -> None:
    with pytest.raises(InputError, match="expert 3 appears twice"):
        build_remap([1, 3, 2, 3])


@pytest.mark.parametrize("wrong", [{5: 1, 7: 0}, {5: 0, 7: 2}, {-1: 0}])
def test_a_map_that_is_no_ranking_is_refused(wrong: dict[int, int]) -> None:
    with pytest.raises(InputError, match="ranks"):
        Remap(wrong)


def tree(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    layer = {"kernel": rng.normal(size=(3, 2)).astype(np.float32), "bias": rng.normal(size=2).astype(np.float32)}
    return {"actor": [layer, {"count": np.int32(seed)}], "critic": (rng.normal(size=4),)}


def leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [np.asarray(value)]


@given(num=st.integers(1, 24), extra=st.integers(0, 5))
def test_experts_come_back_from_a_stack_bit_for_bit(num: int, extra: int) -> None:
    trees = [tree(seed) for seed in range(num)]
    stacked = stack_experts(trees, num + extra)
    for local, original in enumerate(trees):
        back = expert_slice(stacked, local)
        assert isinstance(back["critic"], tuple)
        for a, b in zip(leaves(back), leaves(original), strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    for row in range(num, num + extra):
        assert all(not leaf.any() for leaf in leaves(expert_slice(stacked, row)))


def test_a_slice_is_a_copy() -> None:
    rows = np.zeros((2, 3))
    take(rows, 0)[:] = 1
    assert not rows.any()


@pytest.mark.parametrize("local", [-1, 2])
def test_a_row_that_is_not_there_is_refused(local: int) -> None:
    with pytest.raises(IndexError):
        take(np.zeros((2, 3)), local)


def test_more_experts_than_places_are_refused() -> None:
    with pytest.raises(InputError, match="2 experts for 1 places"):
        stack_experts([tree(0), tree(1)], 1)


def test_experts_of_different_width_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        stack_experts([{"w": np.zeros((2, 2))}, {"w": np.zeros((2, 3))}], 4)
