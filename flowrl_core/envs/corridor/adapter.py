"""The corridor: a tiny world with sixteen kinds of item that learns in seconds. It tests the adapter interface.

Six cells in a row; the player starts in a random cell. The last cell is a mine: `dig` gives one `a`. The first cell is
a bench: `make_b` ... `make_o` turn one `a` into one item of their kind; `make_p` requires one each of `b` ... `m` in
the inventory and consumes none. Nothing kills; an inventory holds nine of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import NUM_TARGET_FEATURES, Adapter
from flowrl_core.envs.corridor.vocabulary import CORRIDOR, CORRIDOR_ITEMS, CORRIDOR_LENGTH
from flowrl_core.envs.placing import cannot_be, wanted_values
from flowrl_core.trees import tree_class

__all__ = ["make"]

_NUM_ITEMS = len(CORRIDOR_ITEMS)
_P = CORRIDOR_ITEMS.index("p")
_NEEDED_FOR_P = slice(CORRIDOR_ITEMS.index("b"), CORRIDOR_ITEMS.index("m") + 1)
_BENCH, _MINE = 0, CORRIDOR_LENGTH - 1
_FLOOR, _PLAYER, _COUNT = (96, 96, 96), (40, 90, 220), (230, 180, 40)
_COLOURS = {_BENCH: (140, 90, 40), _MINE: (30, 30, 30)}
_SIDE = 16


@tree_class
class _State:
    cell: jax.Array
    items: jax.Array


def make() -> Adapter:
    """Return the adapter of the corridor."""
    return Adapter(
        vocabulary=CORRIDOR,
        num_flags=CORRIDOR_LENGTH,
        reset=_reset,
        step=_step,
        read=_read,
        sight=_sight,
        place=_place,
        render=_render,
    )


def _observe(state: _State) -> jax.Array:
    return jnp.concatenate([jax.nn.one_hot(state.cell, CORRIDOR_LENGTH), state.items.astype(jnp.float32) / 9])


def _reset(key: jax.Array) -> tuple[jax.Array, _State]:
    state = _State(jax.random.randint(key, (), 0, CORRIDOR_LENGTH), jnp.zeros(_NUM_ITEMS, jnp.int32))
    return _observe(state), state


def _step(key: jax.Array, state: _State, action: jax.Array) -> tuple[jax.Array, _State, jax.Array]:
    del key  # the rules are deterministic
    move = jnp.where(action == 0, -1, jnp.where(action == 1, 1, 0))
    digs = (action == 2) & (state.cell == _MINE)
    made = action - 2  # make_b is action 3 and item 1
    is_make = (made >= 1) & (state.cell == _BENCH)
    makes_p = is_make & (made == _P) & (state.items[_NEEDED_FOR_P] >= 1).all()
    makes_other = is_make & (made != _P) & (state.items[0] >= 1)
    change = jax.nn.one_hot(0, _NUM_ITEMS, dtype=jnp.int32) * (digs.astype(jnp.int32) - makes_other.astype(jnp.int32))
    change += jax.nn.one_hot(made, _NUM_ITEMS, dtype=jnp.int32) * (makes_p | makes_other)
    cell = jnp.clip(state.cell + move, 0, CORRIDOR_LENGTH - 1)
    state = _State(cell, jnp.minimum(state.items + change, CORRIDOR.capacity))
    return _observe(state), state, jnp.bool_(False)


def _read(obs: jax.Array, state: _State) -> jax.Array:
    del obs
    places = jnp.stack([state.cell == _BENCH, state.cell - _BENCH, _MINE - state.cell])
    return jnp.concatenate([state.items, places]).astype(jnp.float32)


def _sight(obs: jax.Array, state: _State, target: jax.Array) -> jax.Array:
    del obs
    dx = (jnp.where(target == 0, _BENCH, _MINE) - state.cell).astype(jnp.float32)
    is_adjacent = (jnp.abs(dx) <= 1).astype(jnp.float32)
    zero = jnp.float32(0)
    features = jnp.stack([jnp.sign(dx), zero, dx / CORRIDOR_LENGTH, zero, jnp.float32(1), is_adjacent])
    return jnp.where(target >= 0, features, jnp.zeros(NUM_TARGET_FEATURES))


def _place(state: _State, values: Mapping[str, float]) -> tuple[jax.Array, _State]:
    wanted = wanted_values(CORRIDOR, values)
    items = np.array(state.items)
    for i, item in enumerate(CORRIDOR_ITEMS):
        items[i] = wanted.get(f"inv.{item}", items[i])
    here = int(state.cell)
    cells = sorted(range(CORRIDOR_LENGTH), key=lambda cell: abs(cell - here))
    for name, value in wanted.items():
        if not name.startswith("inv."):
            cells = [cell for cell in cells if _places(cell)[name] == value]
            if not cells:
                raise cannot_be(name, value, "no cell is there, or none that the other places allow")
    placed = _State(jnp.asarray(cells[0], state.cell.dtype), jnp.asarray(items))
    return _observe(placed), placed


def _places(cell: int) -> dict[str, int]:
    return {"near.bench": int(cell == _BENCH), "dist.bench": cell - _BENCH, "dist.mine": _MINE - cell}


def _render(state: _State) -> np.ndarray:
    """Return the cells in a row, and below them a bar for each item with one pixel per item held."""
    pixels = np.zeros((2 * _SIDE, CORRIDOR_LENGTH * _SIDE, 3), np.uint8)
    for cell in range(CORRIDOR_LENGTH):
        left = cell * _SIDE
        pixels[1 : _SIDE - 1, left + 1 : left + _SIDE - 1] = _COLOURS.get(cell, _FLOOR)
    left = int(state.cell) * _SIDE
    pixels[5 : _SIDE - 5, left + 5 : left + _SIDE - 5] = _PLAYER
    width = pixels.shape[1] // _NUM_ITEMS
    for i, count in enumerate(np.asarray(state.items)):
        pixels[2 * _SIDE - 1 - count : 2 * _SIDE - 1, i * width + 1 : (i + 1) * width - 1] = _COUNT
    return pixels
