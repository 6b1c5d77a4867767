"""A chart of what the player has seen, and a compass from it for targets that are out of view.

An environment on a grid says what its view shows (`Terrain`); the rest holds for any of them. The compass points to the
nearest remembered target, or else to the nearest cell that was never seen, beside ground where such a target is found:
frontier-based exploration (Yamauchi 1997). It knows nothing that the player has not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from flowrl_core.envs.adapter import Adapter, Terrain

__all__ = ["Charted", "bearing", "charted"]

_OUTSIDE = 31
"""The code of cells around the world, which are never a target."""
_FARTHEST = 2
"""Bound of a bearing's components, in units of half a view."""


class Charted(NamedTuple):
    """An environment's state, and the chart u8[H + rows - 1, W + columns - 1] of what was last seen in each cell.

    0 stands for a cell that was never seen. The world's cell (0, 0) is at half a view from the chart's corner, so that
    the view fits everywhere.
    """

    state: Any
    chart: jax.Array


def charted(adapter: Adapter) -> Adapter:
    """Return the environment with a compass in its target features; the same one if it declares no terrain.

    While a target is not in view, its features are a `bearing`, with 0 for "in view" and "adjacent".
    """
    terrain = adapter.terrain
    if terrain is None:
        return adapter

    def look(obs: jax.Array, state: Any, chart: jax.Array) -> Charted:
        y, x = terrain.position(state)
        return Charted(state, jax.lax.dynamic_update_slice(chart, terrain.view(obs).astype(jnp.uint8), (y, x)))

    def reset(key: jax.Array) -> tuple[jax.Array, Charted]:
        obs, state = adapter.reset(key)
        return obs, look(obs, state, _unseen(terrain))

    def step(key: jax.Array, state: Charted, action: jax.Array) -> tuple[jax.Array, Charted, jax.Array]:
        obs, after, is_dead = adapter.step(key, state.state, action)
        return obs, look(obs, after, state.chart), is_dead

    def sight(obs: jax.Array, state: Charted, target: jax.Array) -> jax.Array:
        seen = adapter.sight(obs, state.state, target)
        told = bearing(terrain, state.chart, terrain.position(state.state), jnp.maximum(target, 0))
        return jnp.where((seen[4] > 0.5) | (target < 0), seen, told)

    def place(state: Charted, values: Mapping[str, float]) -> tuple[jax.Array, Charted]:
        obs, after = adapter.place(state.state, values)
        return obs, look(obs, after, state.chart)

    render, deadly = adapter.render, adapter.deadly
    return dataclasses.replace(
        adapter,
        reset=reset,
        step=step,
        read=lambda obs, state: adapter.read(obs, state.state),
        sight=sight,
        place=place,
        deadly=None if deadly is None else lambda obs, state: deadly(obs, state.state),
        render=None if render is None else lambda state: render(state.state),
    )


def _unseen(terrain: Terrain) -> jax.Array:
    (height, width), (rows, columns) = terrain.size, terrain.view_size
    world = jnp.zeros((height, width), jnp.uint8)
    return jnp.pad(world, ((rows // 2, rows // 2), (columns // 2, columns // 2)), constant_values=_OUTSIDE)


def bearing(terrain: Terrain, chart: jax.Array, position: jax.Array, target: jax.Array) -> jax.Array:
    """Return where to look for a target, f32[6]: sign dx, sign dy, dx, dy in units of half a view, 0, 0.

    All zeros if none is remembered and nothing is left to look at.

    Args:
        position: i32[2] the player's row and column; target: i32[] from 0.
    """
    rows, columns = terrain.view_size
    y, x = position[0] + rows // 2, position[1] + columns // 2
    height, width = chart.shape
    is_target, is_ground = (
        ((jnp.asarray(codes)[target] >> chart.astype(jnp.uint32)) & 1) > 0
        for codes in (terrain.targets, terrain.ground)
    )
    around = jnp.pad(is_ground, 1)
    is_beside = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    distance = jnp.abs(jnp.arange(height) - y)[:, None] + jnp.abs(jnp.arange(width) - x)
    far = height + width  # farther than any remembered target
    cost = jnp.where((chart == 0) & is_beside, far + distance, 2 * far)
    cost = jnp.where(is_target, distance, cost)
    # The least cost and its cell in one number (below 2^31 in worlds of 800 x 800): on a CPU, XLA's argmin is slower.
    cells = height * width
    best = (cost * cells + jnp.arange(cells).reshape(height, width)).min()
    least, nearest = best // cells, best % cells
    offset = jnp.stack([nearest % width - x, nearest // width - y])
    scaled = jnp.clip(offset / jnp.array([columns // 2, rows // 2]), -_FARTHEST, _FARTHEST)
    told = jnp.concatenate([jnp.sign(offset).astype(jnp.float32), scaled.astype(jnp.float32), jnp.zeros(2)])
    return jnp.where(least < 2 * far, told, 0.0)
