"""A pool of pre-generated worlds for resets: generating one costs 20 to 50 environment steps, drawing one a copy.

Worlds are drawn in turn from the pool, and one that has started `world_uses` episodes is replaced before the next
rollout. So every start is a draw from the game's own distribution; only repeats of one world (with other random
numbers) are correlated. The counters start staggered, so that replacements spread evenly over time.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import Adapter
from flowrl_core.trees import tree_class
from flowrl_core.types import Leaf

__all__ = ["PoolUse", "WorldPool", "draw", "empty_pool", "put_rows", "replace_used", "staggered", "used_up"]


@tree_class
class WorldPool:
    """P worlds at their start: observations f32[P, D] and states with leaves [P, ...]."""

    obs: Leaf
    state: Any


@tree_class
class PoolUse:
    """The use of the pool so far.

    Attributes:
        uses: i32[P] episodes started from each current world.
        cursor: i32[] index of the next draw.
        born: i32[] worlds generated so far; folded into the stream's key it gives the next world's key.
    """

    uses: Leaf
    cursor: Leaf
    born: Leaf


def empty_pool(adapter: Adapter, size: int) -> WorldPool:
    """Return a pool of `size` blank worlds, to be filled by `replace_used`."""
    shapes = jax.eval_shape(adapter.reset, jax.ShapeDtypeStruct((2,), jnp.uint32))
    obs, state = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)
    return WorldPool(obs, state)


def used_up(size: int) -> PoolUse:
    """Return counters that mark every world as used up, so that the next `replace_used` generates all of them."""
    return PoolUse(uses=np.full(size, np.iinfo(np.int32).max, np.int32), cursor=np.int32(0), born=np.int32(0))


def staggered(size: int, max_uses: int) -> PoolUse:
    """Return the counters of a new pool, as if its worlds had been used a different number of times each.

    Replacements then spread evenly over time.
    """
    return PoolUse(uses=np.arange(size, dtype=np.int32) % max_uses, cursor=np.int32(0), born=np.int32(0))


def replace_used(
    adapter: Adapter, pool: WorldPool, use: PoolUse, key: jax.Array, max_uses: jax.Array
) -> tuple[WorldPool, PoolUse]:
    """Return the pool with every world that has started `max_uses` episodes replaced by a new one.

    Worlds are generated one after another in a loop whose length is data, so the cost is that of the replaced worlds
    only.
    """
    size = use.uses.shape[0]
    is_used = use.uses >= max_uses
    (index,) = jnp.nonzero(is_used, size=size, fill_value=0)

    def renew(i: jax.Array, pool: WorldPool) -> WorldPool:
        obs, state = adapter.reset(jax.random.fold_in(key, use.born + i))
        return jax.tree.map(lambda old, new: old.at[index[i]].set(new), pool, WorldPool(obs, state))

    count = is_used.sum(dtype=jnp.int32)
    pool = jax.lax.fori_loop(0, count, renew, pool)
    return pool, PoolUse(jnp.where(is_used, 0, use.uses), use.cursor, use.born + count)


def draw(use: PoolUse, is_reset: jax.Array) -> tuple[jax.Array, PoolUse]:
    """Return a world of the pool for each environment that resets.

    Args:
        is_reset: bool[B].

    Returns:
        i32[B] index into the pool (undefined where `is_reset` is false), and the updated counters. If a rollout resets
            at most P times, no world starts more than `max_uses` episodes.
    """
    size = use.uses.shape[0]
    rank = jnp.cumsum(is_reset) - is_reset
    index = (use.cursor + rank) % size
    uses = use.uses.at[jnp.where(is_reset, index, size)].add(1, mode="drop")
    return index, PoolUse(uses, (use.cursor + is_reset.sum(dtype=jnp.int32)) % size, use.born)


def put_rows(current: Any, source: Any, is_put: jax.Array, index: jax.Array) -> Any:
    """Return the tree with row b replaced by row `index[b]` of `source` wherever `is_put[b]`.

    The loop is as long as there are rows to replace: a reset costs a copy of one world and a step without a reset costs
    nothing, whereas a `where` over the whole batch would copy every world in every step.

    Args:
        current: leaves [B, ...]; source: leaves [P, ...].
        is_put: bool[B]; index: i32[B], undefined where `is_put` is false.
    """
    batch = is_put.shape[0]
    (rows,) = jnp.nonzero(is_put, size=batch, fill_value=0)

    def put(i: jax.Array, current: Any) -> Any:
        row = rows[i]
        return jax.tree.map(lambda leaf, new: leaf.at[row].set(new[index[row]]), current, source)

    return jax.lax.fori_loop(0, is_put.sum(dtype=jnp.int32), put, current)
