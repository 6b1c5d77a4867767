"""Entry snapshots: a ring for each step, drawn where practice is needed, and none that is empty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.envs.snapshots import no_snapshots, pick, record
from flowrl_core.envs.worlds import WorldPool
from flowrl_core.skills.model import MAX_STEPS

NUM_STEPS = jnp.int32(4)


def filled(capacity, entries, num_steps=NUM_STEPS):
    """The store after `entries`: (step, number) in turn, whose state, observation and time are the number."""
    store = no_snapshots(WorldPool(jnp.zeros((1, 1)), (jnp.zeros(1),)), capacity)
    if not entries:
        return store

    def enter(store, entry):
        step, number = entry
        value = number[None].astype(jnp.float32)
        after = record(store, jnp.array([True]), step[None], num_steps, value[None], (value,), number[None])
        return after, None

    return jax.lax.scan(enter, store, tuple(jnp.int32(column) for column in zip(*entries, strict=True)))[0]


def drawn(store, weight, fraction=1.0, batch=4_000, num_steps=NUM_STEPS):
    shares = jnp.zeros(MAX_STEPS).at[: len(weight)].set(jnp.float32(weight))
    return jax.tree.map(np.asarray, pick(store, jax.random.PRNGKey(0), batch, fraction, shares, num_steps))


def many(step, number):
    return [(step, 1_000 * step + i) for i in range(number)]


def test_each_step_keeps_its_newest_entries_in_its_own_ring():
    store = filled(96, many(1, 40) + many(2, 5) + many(3, 33))
    assert store.count[:4].tolist() == [0, 40, 5, 33]
    rings = np.asarray(store.time).reshape(3, 32)
    assert sorted(rings[0]) == list(range(1_008, 1_040)), "the oldest eight were replaced"
    assert sorted(rings[1])[-5:] == list(range(2_000, 2_005))
    assert sorted(rings[2]) == list(range(3_001, 3_033))


def test_entries_of_one_moment_do_not_overwrite_each_other():
    store = no_snapshots(WorldPool(jnp.zeros((1, 1)), (jnp.zeros(1),)), 96)
    time = jnp.arange(1, 7)
    is_entry, step = jnp.array([True, True, False, True, True, True]), jnp.int32([1, 2, 1, 1, 2, 3])
    value = time.astype(jnp.float32)
    store = record(store, is_entry, step, NUM_STEPS, value[:, None], (value,), time)
    rings = np.asarray(store.time).reshape(3, 32)
    assert [rings[k][rings[k] > 0].tolist() for k in range(3)] == [[1, 4], [2, 5], [6]]


def test_starts_are_drawn_in_proportion_to_their_weights_and_only_from_their_own_ring():
    store = filled(96, many(1, 40) + many(2, 40) + many(3, 40))
    is_picked, index, step = drawn(store, [5.0, 1.0, 0.0, 3.0], fraction=0.5)
    assert is_picked.mean() == pytest.approx(0.5, abs=0.03)
    share = np.bincount(step[is_picked], minlength=4) / is_picked.sum()
    np.testing.assert_allclose(share, [0, 0.25, 0, 0.75], atol=0.03)
    assert (np.asarray(store.time)[index] // 1_000 == step)[is_picked].all()
    assert len(np.unique(index[is_picked])) == 64, "every snapshot of both rings"


def test_a_ring_with_a_handful_is_not_drawn_whatever_its_weight():
    store = filled(96, many(1, 40) + many(3, 31))
    is_picked, _, step = drawn(store, [0, 0.01, 9, 9])
    assert is_picked.all() and set(step) == {1}


@pytest.mark.parametrize(("entries", "weight"), [([], [1, 1, 1, 1]), (many(1, 40), [0, 0, 1, 1])])
def test_without_anything_to_draw_no_start_is_a_snapshot(entries, weight):
    assert not drawn(filled(96, entries), weight)[0].any()


def test_a_store_smaller_than_the_plan_serves_its_first_steps():
    store = filled(2, many(1, 3) + many(2, 3) + many(3, 3))
    is_picked, index, step = drawn(store, [1, 1, 1, 1])
    assert is_picked.all() and set(step) == {1, 2} and set(index) == {0, 1}
    assert (np.asarray(store.time)[index] // 1_000 == step).all()


def test_a_plan_of_two_steps_uses_the_whole_store_for_its_last_one():
    store = filled(64, many(1, 64), num_steps=jnp.int32(2))
    _, index, step = drawn(store, [1, 1], num_steps=jnp.int32(2))
    assert set(step) == {1} and len(np.unique(index)) == 64
