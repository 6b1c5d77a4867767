"""Entry snapshots: states at the entries of the plan's steps, recorded from the run's own episodes.

A share of the resets starts from these states, so that late steps of a long plan get practice from the first frames.
Steps at which the run fails most often are drawn most often.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flowrl_core.envs.worlds import WorldPool
from flowrl_core.skills.model import MAX_STEPS
from flowrl_core.trees import tree_class

__all__ = ["Snapshots", "no_snapshots", "pick", "record"]

_FEWEST = 32
"""Minimum number of snapshots of a step before any is used: with a handful, training would learn only that handful."""


@tree_class
class Snapshots:
    """C entry states, divided equally among the steps of the plan that have an entry: all but the first.

    Each step writes its part in a ring: the newest replaces the oldest.

    Attributes:
        obs: f32[C, D]; state: leaves [C, ...].
        time: i32[C] steps of the episode up to the snapshot.
        count: i32[S] states recorded so far, by step.
    """

    obs: jax.Array
    state: Any
    time: jax.Array
    count: jax.Array


def no_snapshots(pool: WorldPool, capacity: int) -> Snapshots:
    """Return an empty store for states shaped like those of the pool."""
    blank = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype), pool)
    return Snapshots(blank.obs, blank.state, jnp.zeros(capacity, jnp.int32), jnp.zeros(MAX_STEPS, jnp.int32))


def record(
    snapshots: Snapshots,
    is_entry: jax.Array,
    step: jax.Array,
    num_steps: jax.Array,
    obs: jax.Array,
    state: Any,
    time: jax.Array,
) -> Snapshots:
    """Return the store with the states of the environments where `is_entry` (bool[B]) added.

    Args:
        step: i32[B] the step that is entered, from 1.
        num_steps: i32[] length of the plan.
    """
    capacity = snapshots.time.shape[0]
    size = _ring(capacity, num_steps)
    is_mine = is_entry[:, None] & (step[:, None] == jnp.arange(MAX_STEPS))
    rank = ((jnp.cumsum(is_mine, axis=0) - is_mine) * is_mine).sum(1)
    place = (step - 1) * size + (snapshots.count[jnp.minimum(step, MAX_STEPS - 1)] + rank) % size
    is_put = is_entry & (place < capacity)
    slot = jnp.where(is_put, place, 0)
    (rows,) = jnp.nonzero(is_put, size=is_put.shape[0], fill_value=0)

    # Entries are frequent: a scatter over the batch would copy the whole store in nearly every environment step.
    def put(i: jax.Array, stored: Any) -> Any:
        row = rows[i]
        return jax.tree.map(lambda ring, new: ring.at[slot[row]].set(new[row]), stored, (obs, state, time))

    stored = (snapshots.obs, snapshots.state, snapshots.time)
    obs, state, time = jax.lax.fori_loop(0, is_put.sum(dtype=jnp.int32), put, stored)
    return Snapshots(obs, state, time, snapshots.count + is_mine.sum(0, dtype=jnp.int32))


def pick(
    snapshots: Snapshots, key: jax.Array, batch: int, fraction: jax.Array, weight: jax.Array, num_steps: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return which environments would start from a snapshot, its index, and its step: bool[B], i32[B], i32[B].

    Args:
        fraction: f32[] share of the environments that would, once a step has enough snapshots.
        weight: f32[S] relative frequency of each step.
        num_steps: i32[] length of the plan.
    """
    chance_key, step_key, index_key = jax.random.split(key, 3)
    size = _ring(snapshots.time.shape[0], num_steps)
    number = jnp.arange(MAX_STEPS)
    has_ring = (number > 0) & (number < num_steps) & (number * size <= snapshots.time.shape[0])
    is_ready = has_ring & (snapshots.count >= jnp.minimum(_FEWEST, size))
    share = jnp.where(is_ready, weight, 0.0)
    is_picked = (jax.random.uniform(chance_key, (batch,)) < fraction) & (share.sum() > 0)
    step = jax.random.categorical(step_key, jnp.log(share), shape=(batch,)).astype(jnp.int32)
    filled = jnp.clip(snapshots.count, 1, size)[step]
    index = jnp.minimum((jax.random.uniform(index_key, (batch,)) * filled).astype(jnp.int32), filled - 1)
    return is_picked, jnp.maximum(step - 1, 0) * size + index, step


def _ring(capacity: int, num_steps: jax.Array) -> jax.Array:
    """Return the number of snapshots kept of each step."""
    return jnp.maximum(capacity // jnp.maximum(num_steps - 1, 1), 1)
