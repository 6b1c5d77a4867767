"""The corridor: a tiny world with sixteen kinds of item that learns in seconds. It proves the seam and serves the
tests.

Six cells in a row; the player starts in a random one. In the last cell is a mine: `dig` gives one `a`. In the first
cell is a
bench: `make_b` ... `make_o` turn one `a` into one of their kind, `make_p` needs one each of `b` ... `m` in hand and
uses none. Nothing kills; an inventory holds nine of a kind.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flowrl_core.envs.adapter import NUM_TARGET_FEATURES, Adapter
from flowrl_core.trees import tree_class
from flowrl_core.vocabulary.catalogue import CORRIDOR, CORRIDOR_ITEMS, CORRIDOR_LENGTH

__all__ = ["make"]

_NUM_ITEMS = len(CORRIDOR_ITEMS)
_P = CORRIDOR_ITEMS.index("p")
_NEEDED_FOR_P = slice(CORRIDOR_ITEMS.index("b"), CORRIDOR_ITEMS.index("m") + 1)
_BENCH, _MINE = 0, CORRIDOR_LENGTH - 1


@tree_class
class _State:
    cell: jax.Array
    items: jax.Array


def make() -> Adapter:
    """The adapter of the corridor."""
    return Adapter(
        vocabulary=CORRIDOR,
        num_flags=CORRIDOR_LENGTH,
        reset=_reset,
        step=_step,
        read=_read,
        sight=_sight,
    )


def _observe(state: _State) -> jax.Array:
    return jnp.concatenate([jax.nn.one_hot(state.cell, CORRIDOR_LENGTH), state.items.astype(jnp.float32) / 9])


def _reset(key: jax.Array) -> tuple[jax.Array, _State]:
    state = _State(jax.random.randint(key, (), 0, CORRIDOR_LENGTH), jnp.zeros(_NUM_ITEMS, jnp.int32))
    return _observe(state), state


def _step(key: jax.Array, state: _State, action: jax.Array) -> tuple[jax.Array, _State, jax.Array]:
    del key  # the rules hold no chance
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
