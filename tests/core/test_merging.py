"""Merging: which version of a shared expert becomes its head."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.skills.merging import decide
from flowrl_core.types import MergeAction, MergePolicy

FRAMES = st.integers(0, 10**12)


def commit_all(policy: MergePolicy, head: int | None, candidates: tuple[int, ...]) -> int | None:
    """The frames of the head after learned runs with these candidates commit one after another."""
    for candidate in candidates:
        action = decide(policy, is_learned=True, head_frames=head, candidate_frames=candidate, changed=True)
        head = head if action == "kept" else candidate
    return head


@pytest.mark.parametrize("order", [(130, 150), (150, 130)])
def test_of_two_siblings_the_one_with_more_frames_wins_whichever_ends_first(order: tuple[int, int]) -> None:
    million = 1_000_000
    candidates = tuple(frames * million for frames in order)
    assert commit_all("most_frames", 50 * million, candidates) == 150 * million


@given(head=st.none() | FRAMES, candidates=st.lists(FRAMES, min_size=1, max_size=5))
def test_most_frames_ends_with_the_same_head_in_every_order(head: int | None, candidates: list[int]) -> None:
    ends = {commit_all("most_frames", head, order) for order in itertools.permutations(candidates)}
    assert ends == {max([*candidates, *([] if head is None else [head])])}


def test_a_tie_keeps_the_head() -> None:
    assert decide("most_frames", is_learned=True, head_frames=7, candidate_frames=7, changed=True) == "kept"


def test_frozen_sets_a_first_head_and_never_moves_one() -> None:
    assert decide("frozen", is_learned=True, head_frames=None, candidate_frames=1, changed=True) == "new"
    assert decide("frozen", is_learned=True, head_frames=1, candidate_frames=10**9, changed=True) == "kept"


@given(head=st.integers(0, 512), candidate=st.integers(0, 512), frames=FRAMES)
def test_evaluated_moves_the_head_to_what_is_not_worse_whatever_its_frames(
    head: int, candidate: int, frames: int
) -> None:
    facts: dict[str, Any] = {"is_learned": True, "head_frames": frames, "candidate_frames": 7}
    action = decide("evaluated", changed=True, successes=(head, candidate), **facts)
    assert action == ("updated" if candidate >= head else "kept")
    assert decide("evaluated", changed=False, successes=(head, head), **facts) == "kept"
    for policy in get_args(MergePolicy):
        if policy != "evaluated":
            unmeasured = decide(policy, changed=True, **facts)
            assert decide(policy, changed=True, successes=(head, candidate), **facts) == unmeasured


def test_what_cannot_be_measured_is_decided_by_frames() -> None:
    assert decide("evaluated", is_learned=True, head_frames=7, candidate_frames=8, changed=True) == "updated"
    assert decide("evaluated", is_learned=True, head_frames=8, candidate_frames=8, changed=True) == "kept"


@given(
    policy=st.sampled_from(get_args(MergePolicy)),
    is_learned=st.booleans(),
    head=st.none() | FRAMES,
    candidate=FRAMES,
    changed=st.booleans(),
)
def test_the_decision_is_total_and_moves_nothing_without_cause(
    policy: MergePolicy, is_learned: bool, head: int | None, candidate: int, changed: bool
) -> None:
    action = decide(policy, is_learned=is_learned, head_frames=head, candidate_frames=candidate, changed=changed)
    assert action in get_args(MergeAction)
    if not is_learned or (not changed and head is not None):
        assert action == "kept"
    assert (action == "new") == (is_learned and head is None)
