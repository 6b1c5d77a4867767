"""Entry snapshots: states at the entry of the plan's last step, recorded from the run's own successes.

A share of the resets starts from these states, so that a new expert at the end of a long plan gets practice from the
first frames.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flowrl_core.envs.worlds import WorldPool
from flowrl_core.trees import tree_class

__all__ = ["Snapshots", "no_snapshots", "pick", "record"]

_FEWEST = 32
"""Minimum number of snapshots before any is used: with a handful, training would learn only that handful."""


@tree_class
class Snapshots:
    """A ring of C entry states.

    Attributes:
        obs: f32[C, D]; state: leaves [C, ...].
        time: i32[C] steps of the episode up to the snapshot.
        count: i32[] states recorded so far.
    """

    obs: jax.Array
    state: Any
    time: jax.Array
    count: jax.Array


def no_snapshots(pool: WorldPool, capacity: int) -> Snapshots:
    """Return an empty ring for states shaped like those of the pool."""
    blank = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype), pool)
    return Snapshots(blank.obs, blank.state, jnp.zeros(capacity, jnp.int32), jnp.int32(0))


def record(snapshots: Snapshots, is_entry: jax.Array, obs: jax.Array, state: Any, time: jax.Array) -> Snapshots:
    """Return the ring with the states of the environments where `is_entry` (bool[B]) added."""
    capacity = snapshots.time.shape[0]
    rank = jnp.cumsum(is_entry) - is_entry
    slot = jnp.where(is_entry, (snapshots.count + rank) % capacity, capacity)

    def put(ring: jax.Array, new: jax.Array) -> jax.Array:
        return ring.at[slot].set(new, mode="drop")

    def put_all(s: Snapshots) -> Snapshots:
        return Snapshots(
            put(s.obs, obs),
            jax.tree.map(put, s.state, state),
            put(s.time, time),
            s.count + is_entry.sum(dtype=jnp.int32),
        )

    return jax.lax.cond(is_entry.any(), put_all, lambda s: s, snapshots)


def pick(snapshots: Snapshots, key: jax.Array, batch: int, fraction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return which environments would start from a snapshot (bool[B]), and the snapshot of each (i32[B])."""
    chance_key, index_key = jax.random.split(key)
    capacity = snapshots.time.shape[0]
    is_picked = (jax.random.uniform(chance_key, (batch,)) < fraction) & (snapshots.count >= min(_FEWEST, capacity))
    filled = jnp.clip(snapshots.count, 1, capacity)
    return is_picked, jax.random.randint(index_key, (batch,), 0, filled)
