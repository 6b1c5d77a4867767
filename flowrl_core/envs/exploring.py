"""What a player has seen of its world: a record of the cells that were in view, beside the state of any adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flowrl_core.envs.adapter import Adapter, Grid
from flowrl_core.trees import tree_class

__all__ = ["Explorer", "exploring"]

_BITS = 32


@tree_class
class Explorer:
    """A state and what its player has seen so far.

    Attributes:
        state: of the environment.
        seen: u32[H, ceil(W / 32)] one bit for each cell that has been in view in this episode; the lowest is leftmost.
        news: i32[] cells that came into view for the first time in the last step; 0 at the start.
    """

    state: Any
    seen: jax.Array
    news: jax.Array


def exploring(adapter: Adapter) -> Adapter:
    """Return the same environment with states that remember which cells were in view.

    An adapter without a grid is returned as it is: nothing in it has to be searched for.
    """
    grid = adapter.grid
    if grid is None:
        return adapter

    def reset(key: jax.Array) -> tuple[jax.Array, Explorer]:
        obs, state = adapter.reset(key)
        return obs, Explorer(state, _view(grid, state), jnp.int32(0))

    def step(key: jax.Array, before: Explorer, action: jax.Array) -> tuple[jax.Array, Explorer, jax.Array]:
        obs, state, is_dead = adapter.step(key, before.state, action)
        view = _view(grid, state)
        news = jax.lax.population_count(view & ~before.seen).sum(dtype=jnp.int32)
        return obs, Explorer(state, before.seen | view, news), is_dead

    def place(before: Explorer, values: Mapping[str, float]) -> tuple[jax.Array, Explorer]:
        obs, state = adapter.place(before.state, values)
        return obs, dataclasses.replace(before, state=state)

    render, deadly = adapter.render, adapter.deadly
    return dataclasses.replace(
        adapter,
        reset=reset,
        step=step,
        read=lambda obs, explorer: adapter.read(obs, explorer.state),
        sight=lambda obs, explorer, target: adapter.sight(obs, explorer.state, target),
        place=place,
        deadly=None if deadly is None else lambda obs, explorer: deadly(obs, explorer.state),
        render=None if render is None else lambda explorer: render(explorer.state),
        news=lambda explorer: explorer.news,
    )


def _view(grid: Grid, state: Any) -> jax.Array:
    """Return the cells in view, as `Explorer.seen`; what lies outside the world is none of them."""
    row, column = grid.position(state)
    is_row = jnp.abs(jnp.arange(grid.rows) - row) <= grid.view_rows // 2
    number = jnp.arange(-(-grid.columns // _BITS) * _BITS)
    is_column = (jnp.abs(number - column) <= grid.view_columns // 2) & (number < grid.columns)
    bits = jnp.uint32(1) << jnp.arange(_BITS, dtype=jnp.uint32)
    packed = jnp.where(is_column.reshape(-1, _BITS), bits, 0).sum(1, dtype=jnp.uint32)
    return jnp.where(is_row[:, None], packed, 0)
