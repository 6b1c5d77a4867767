"""The lamps: one draws oil from the well that one stands at, and kindles lamps with it."""

import jax.numpy as jnp
import numpy as np
from lamps import ENVIRONMENT
from lamps.rules import amounts_after

from flowrl_core.envs.adapter import Adapter, Terrain
from flowrl_core.envs.placing import wanted_values

NAMES = [fluent.name for fluent in ENVIRONMENT.vocabulary.fluents]
WELL = 1
TERRAIN = Terrain(
    size=(1, 1),
    view_size=(1, 1),
    position=lambda state: jnp.zeros(2, jnp.int32),  # the world has one cell, which is the well's
    view=lambda obs: jnp.full((1, 1), WELL, jnp.uint8),
    targets=np.array([1 << WELL], np.uint32),
    ground=np.array([0], np.uint32),
)


def make():
    calls = {"reset": reset, "step": step, "read": read, "sight": sight, "place": place}
    return Adapter(ENVIRONMENT.vocabulary, 1, **calls, terrain=TERRAIN)


def observe(state):
    return jnp.concatenate([state[1:] == 0, state / 9]).astype(jnp.float32)


def reset(key):
    state = jnp.zeros(2, jnp.int32)
    return observe(state), state


def step(key, state, action):
    state = amounts_after(state, action)
    return observe(state), state, jnp.bool_(False)


def read(obs, state):
    return state.astype(jnp.float32)


def sight(obs, state, target):
    return jnp.where(target == 0, jnp.array([0, 0, 0, 0, 1, 1], jnp.float32), 0)


def place(state, values):
    wanted = wanted_values(ENVIRONMENT.vocabulary, values)
    state = jnp.array([wanted.get(name, state[i]) for i, name in enumerate(NAMES)], jnp.int32)
    return observe(state), state
