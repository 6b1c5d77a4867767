"""Blows in Craftax-Classic: the damage that the player has dealt and taken in an episode, counted in the game's step.

The game's functions copy every field of the state that they do not change, so the counters are fields of a subclass of
its state, and the two functions in which blows fall (`do_action` and `update_mobs`) are wrapped.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from craftax.craftax_classic.envs.craftax_state import EnvState
from craftax.craftax_classic.game_logic import do_action, update_mobs
from flax import struct

from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC

__all__ = ["DEALT", "TAKEN", "BlowsState", "act", "counting", "move_mobs"]

_TOTALS = {fluent.name: fluent.high for fluent in CRAFTAX_CLASSIC.fluents if fluent.kind == "total"}
TAKEN = "taken.damage"
DEALT = tuple(name for name in _TOTALS if name != TAKEN)
"""The fluents of damage dealt, in the order of `BlowsState.dealt`."""
_MOBS = tuple(f"{name.removeprefix('dealt.')}s" for name in DEALT)


@struct.dataclass(kw_only=True)
class BlowsState(EnvState):
    """The game's state and the episode's counters.

    Attributes:
        dealt: i32[3] points of health that the player has taken from zombies, cows and skeletons.
        taken: i32[] points of health that zombies and arrows have taken from the player.
    """

    dealt: jax.Array
    taken: jax.Array


def counting(state: EnvState) -> BlowsState:
    """Return a new world's state with counters at 0."""
    return BlowsState(**vars(state), dealt=jnp.zeros(len(DEALT), jnp.int32), taken=jnp.int32(0))


def act(rng: jax.Array, state: BlowsState, action: jax.Array, static_params: Any) -> BlowsState:
    """Return the state after the game's `do_action`; the health that a creature loses has been dealt to its kind."""
    after = do_action(rng, state, action, static_params)
    dealt = jnp.stack([_health(state, mobs) - _health(after, mobs) for mobs in _MOBS])
    most = jnp.array([_TOTALS[name] for name in DEALT], jnp.int32)
    counted: BlowsState = after.replace(dealt=jnp.minimum(state.dealt + dealt, most))
    return counted


def move_mobs(rng: jax.Array, state: BlowsState, params: Any, static_params: Any) -> BlowsState:
    """Return the state after the game's `update_mobs`; the health that the player loses there has been taken.

    Hunger, thirst and tiredness come later in the step, and lava kills after that.
    """
    after = update_mobs(rng, state, params, static_params)
    lost = jnp.maximum(state.player_health, 0) - jnp.maximum(after.player_health, 0)
    counted: BlowsState = after.replace(taken=jnp.minimum(state.taken + lost, _TOTALS[TAKEN]).astype(jnp.int32))
    return counted


def _health(state: EnvState, mobs: str) -> jax.Array:
    """Return the health i32[] of all creatures of a kind; the game leaves less than 0 to those that were hit hard."""
    return jnp.maximum(getattr(state, mobs).health, 0).sum(dtype=jnp.int32)
