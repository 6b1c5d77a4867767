"""Craftax-Classic (symbolic) as FlowRL sees it: fluents and target features read from state and observation.

Source of the game: Matthews et al., "Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement Learning"
(2024), package `craftax`. The observation is the 7 x 9 view with one-hot blocks (17) and creatures (4) in each cell,
then 22 numbers on inventory, vitals, direction, sleep and light.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from craftax.craftax_classic import game_logic
from craftax.craftax_classic.constants import BlockType
from craftax.craftax_classic.envs.craftax_symbolic_env import CraftaxClassicSymbolicEnvNoAutoReset

from flowrl_core.envs.adapter import Adapter, Terrain
from flowrl_core.envs.craftax_classic.blows import act, counting, move_mobs
from flowrl_core.envs.craftax_classic.cell_choice import choose_cell
from flowrl_core.envs.craftax_classic.placing import placed
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC, KINDS

__all__ = ["make"]

_ROWS, _COLUMNS, _CHANNELS = 7, 9, 21
_VIEW = _ROWS * _COLUMNS * _CHANNELS
_CREATURE_CHANNEL = {"zombie": 17, "cow": 18, "skeleton": 19}
_KIND_CHANNELS = np.array(
    [_CREATURE_CHANNEL[name] if name in _CREATURE_CHANNEL else BlockType[name.upper()].value for name in KINDS]
)
# f32[targets, 21]: 1 where a channel shows something of the target.
_TARGET_CHANNELS = np.array(
    [
        np.isin(np.arange(_CHANNELS), [_KIND_CHANNELS[KINDS.index(kind)] for kind in CRAFTAX_CLASSIC.kinds(name)])
        for name in CRAFTAX_CLASSIC.targets
    ],
    np.float32,
)
_BLOCK_CODES = {kind: BlockType[kind.upper()].value for kind in KINDS if kind not in _CREATURE_CHANNEL}
_IN_ROCK = ("stone", "coal", "iron", "diamond", "skeleton")
_ROCK = ("STONE", "PATH", "COAL", "IRON", "DIAMOND", "LAVA")
_OPEN = ("GRASS", "SAND", "TREE")
_DY, _DX = np.meshgrid(np.arange(_ROWS) - _ROWS // 2, np.arange(_COLUMNS) - _COLUMNS // 2, indexing="ij")
_DISTANCE = (np.abs(_DY) + np.abs(_DX)).reshape(-1).astype(np.float32)
_NONE_IN_VIEW = _DISTANCE.max() + 1
_NEIGHBOURS = (np.maximum(np.abs(_DY), np.abs(_DX)) == 1).reshape(-1)
_FACING = slice(_VIEW + 16, _VIEW + 20)
"""The player's direction in an observation: left, right, up, down."""
_BESIDE = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
_MOVES = np.array([CRAFTAX_CLASSIC.actions.index(name) for name in _BESIDE])
_MOVED_TO = np.array([(_ROWS // 2 + dy) * _COLUMNS + _COLUMNS // 2 + dx for dy, dx in _BESIDE.values()])
_ITEMS = tuple(f.name.removeprefix("inv.") for f in CRAFTAX_CLASSIC.fluents if f.name.startswith("inv."))


def make() -> Adapter:
    """Return the adapter of Craftax-Classic."""
    env = CraftaxClassicSymbolicEnvNoAutoReset()
    params = env.default_params
    step_env = _step_env()
    observe = jax.jit(env.get_obs)

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        obs, state = env.reset_env(key, params)
        return obs, counting(state)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
        obs, state, _, is_dead, _ = step_env(env, key, state, action, params)
        return obs, state, is_dead

    def place(state: Any, values: Mapping[str, float]) -> tuple[jax.Array, Any]:
        state = jax.tree.map(jnp.asarray, placed(state, values))
        return observe(state), state

    return Adapter(
        vocabulary=CRAFTAX_CLASSIC,
        num_flags=_VIEW,
        reset=reset,
        step=step,
        read=_read,
        sight=_sight,
        place=place,
        deadly=_deadly,
        canonical=_canonical,
        terrain=_terrain(env),
        render=_render,
    )


def _terrain(env: Any) -> Terrain:
    """Return how the world is charted, by its blocks. Ores and skeletons are looked for in rock, others in the open."""
    blocks = [frozenset(CRAFTAX_CLASSIC.kinds(name)) & set(_BLOCK_CODES) for name in CRAFTAX_CLASSIC.targets]
    ground = [_ROCK if name in _IN_ROCK else _OPEN for name in CRAFTAX_CLASSIC.targets]
    return Terrain(
        size=env.static_env_params.map_size,
        view_size=(_ROWS, _COLUMNS),
        position=lambda state: state.player_position,
        view=lambda obs: _cells(obs)[:, : len(BlockType)].argmax(-1).reshape(_ROWS, _COLUMNS),
        targets=_bits([[_BLOCK_CODES[kind] for kind in kinds] for kinds in blocks]),
        ground=_bits([[BlockType[name].value for name in names] for names in ground]),
    )


def _bits(codes: list[list[int]]) -> np.ndarray:
    return np.array([sum(1 << code for code in each) for each in codes], np.uint32)


def _step_env() -> Callable[..., Any]:
    """Return the game's own `step_env`, which also counts blows and chooses with `choose_cell` where creatures appear.

    The three choices take more than four fifths of a step on a CPU. The functions that call them run with a replaced
    name in their globals; the installed modules stay unchanged.
    """
    random = SimpleNamespace(split=jax.random.split, uniform=jax.random.uniform, choice=choose_cell)
    spawn_mobs = _rebound(game_logic.spawn_mobs, jax=SimpleNamespace(random=random, lax=jax.lax))
    craftax_step = _rebound(game_logic.craftax_step, do_action=act, update_mobs=move_mobs, spawn_mobs=spawn_mobs)
    return _rebound(CraftaxClassicSymbolicEnvNoAutoReset.step_env, craftax_step=craftax_step)


def _render(state: Any) -> np.ndarray:
    return np.asarray(_renderer()(state)).round().clip(0, 255).astype(np.uint8)


@functools.cache
def _renderer() -> Callable[[Any], jax.Array]:
    """Return the game's own renderer, with its 16-pixel pictures read from its image files.

    By default it would read them from a pickle that it writes into the installed package.
    """
    from craftax.craftax_classic import constants, renderer

    size = constants.BLOCK_PIXEL_SIZE_IMG
    make_renderer = _rebound(
        renderer.make_craftax_pixel_renderer,
        load_all_textures=lambda: {size: constants.load_all_textures_given_size(size)},
    )
    return jax.jit(make_renderer(size))


def _rebound(function: Any, **names: Any) -> FunctionType:
    """Return the function with `names` in place of the globals of the same names."""
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)


def _cells(obs: jax.Array) -> jax.Array:
    return obs[:_VIEW].reshape(_ROWS * _COLUMNS, _CHANNELS)


def _read(obs: jax.Array, state: Any) -> jax.Array:
    cells = _cells(obs)
    near = cells[_NEIGHBOURS][:, [BlockType.CRAFTING_TABLE.value, BlockType.FURNACE.value]].max(0)
    distances = jnp.where(cells[:, _KIND_CHANNELS] > 0.5, _DISTANCE[:, None], _NONE_IN_VIEW).min(0)
    inventory = jnp.stack([getattr(state.inventory, item) for item in _ITEMS])
    vitals = jnp.stack([state.player_health, state.player_food, state.player_drink, state.player_energy])
    parts = (inventory, state.achievements, near, vitals, distances, state.dealt, state.taken[None])
    return jnp.concatenate([part.astype(jnp.float32) for part in parts])


def _deadly(obs: jax.Array, state: Any) -> jax.Array:
    """Return the moves that would go into lava."""
    del state
    is_lava = _cells(obs)[:, BlockType.LAVA.value] > 0.5
    return jnp.zeros(len(CRAFTAX_CLASSIC.actions), bool).at[_MOVES].set(is_lava[_MOVED_TO])


def _canonical(obs: jax.Array, sight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the view mirrored so that the target is to the right and below.

    Along an axis on which the target has no offset, or is not in view, a player who looks left or up looks right or
    down. The game's rules are the same in every mirrored world.
    """
    left, right, up, down = facing = obs[_FACING]
    is_flipped = jnp.where(sight[:2] == 0, jnp.stack([left, up]) > 0.5, sight[:2] < 0)
    across, upright = is_flipped
    cells = obs[:_VIEW].reshape(_ROWS, _COLUMNS, _CHANNELS)
    cells = jnp.where(across, cells[:, ::-1], cells)
    cells = jnp.where(upright, cells[::-1], cells)
    swapped = jnp.stack([right, left, down, up])
    facing = jnp.where(jnp.repeat(is_flipped, 2), swapped, facing)
    sign = jnp.where(is_flipped, -1.0, 1.0)
    actions = jnp.arange(len(CRAFTAX_CLASSIC.actions))
    moves = jnp.where(jnp.repeat(is_flipped, 2), _MOVES[np.array([1, 0, 3, 2])], _MOVES)
    numbers = jnp.concatenate([obs[_VIEW : _FACING.start], facing, obs[_FACING.stop :]])
    return (
        jnp.concatenate([cells.reshape(-1), numbers]),
        jnp.concatenate([sight[:4] * jnp.tile(sign, 2), sight[4:]]),
        actions.at[_MOVES].set(moves),
    )


def _sight(obs: jax.Array, state: Any, target: jax.Array) -> jax.Array:
    channels = jnp.asarray(_TARGET_CHANNELS)[jnp.maximum(target, 0)]
    present = (_cells(obs) * channels).sum(-1) > 0.5
    distance = jnp.where(present, _DISTANCE, _NONE_IN_VIEW)
    nearest = jnp.argmin(distance)
    dx = jnp.asarray(_DX.reshape(-1), jnp.float32)[nearest]
    dy = jnp.asarray(_DY.reshape(-1), jnp.float32)[nearest]
    is_seen = present.any() & (target >= 0)
    is_adjacent = distance[nearest] <= 1
    features = jnp.stack([jnp.sign(dx), jnp.sign(dy), dx / 4, dy / 3, jnp.float32(1), is_adjacent.astype(jnp.float32)])
    return jnp.where(is_seen, features, 0.0)
