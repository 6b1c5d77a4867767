"""Records the transitions shipped for an environment: a few thousand example steps.

    python -m flowrl_core.stages.proposals.recording craftax-classic

Four scripts play in new worlds: random actions, standing still, moving to and fro, and collecting. A fifth plays random
actions in worlds edited by hand: a full inventory, and late-game objects all around the player.
"""

from __future__ import annotations

import logging
import pkgutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import Adapter, make_adapter
from flowrl_core.envs.scene import Scene
from flowrl_core.errors import InputError
from flowrl_core.proposals.recorded_transitions import RecordedTransitions, save_transitions, transitions_file
from flowrl_core.vocabulary.catalogue import environment

__all__ = ["main", "record"]

logger = logging.getLogger(__name__)

_STEPS = 64
_RESETS = 128
_EPISODES = {"chance": 16, "still": 4, "to_and_fro": 8, "errand": 16, "late": 36}

_Draw = np.random.Generator


def record(env: str) -> RecordedTransitions:
    """The recorded transitions of an environment; deterministic.

    Raises:
        InputError: no such environment, or it does not define how to record it.
    """
    adapter = make_adapter(env)
    scene = _scene(env)
    scripts = tuple(name for name, number in _EPISODES.items() for _ in range(number))
    obs, worlds = jax.jit(jax.vmap(adapter.reset))(jax.random.split(jax.random.PRNGKey(0), _RESETS))
    resets = np.asarray(jax.vmap(adapter.read)(obs, worlds))
    states = _begin(adapter, scene, scripts, jax.device_get(worlds))
    rows, is_alive = _play(adapter, scene, scripts, states)
    # An episode ends with the step in which the player dies; the first row is that after one step of standing still.
    lengths = np.where(is_alive.all(axis=0), len(is_alive), np.argmin(is_alive, axis=0) + 1) - 1
    return RecordedTransitions(adapter.vocabulary, rows, lengths.astype(np.int64), scripts, _small(adapter, resets))


def main(arguments: list[str] | None = None) -> None:
    """Record the transitions of the named environments into the files shipped with the package."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for env in sys.argv[1:] if arguments is None else arguments:
        path = transitions_file(env)
        recorded = record(env)
        save_transitions(recorded, path)
        logger.info("%s: %d transitions, %d bytes", path, recorded.lengths.sum(), path.stat().st_size)


def _scene(env: str) -> Scene:
    entry = environment(env)
    if entry.scene is None:
        raise InputError("env", f"{env} has no scene to record", "Name one in its entry of the catalogue")
    scene: Scene = pkgutil.resolve_name(entry.scene)
    return scene


def _begin(adapter: Adapter, scene: Scene, scripts: tuple[str, ...], worlds: Any) -> Any:
    """The state in which each episode begins, leaves [E, ...]."""
    states = []
    for e, script in enumerate(scripts):
        state = jax.tree.map(lambda leaf, e=e: np.asarray(leaf[e]), worlds)
        states.append(scene.late(np.random.default_rng(e), adapter, state) if script == "late" else state)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _play(adapter: Adapter, scene: Scene, scripts: tuple[str, ...], states: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows u8[E, L + 1, F], and bool[L + 1, E]: whether the player is alive at that step."""
    target = jnp.int32(adapter.vocabulary.targets.index(scene.target))

    @jax.jit
    def step(key: jax.Array, states: Any, actions: jax.Array) -> tuple[Any, ...]:
        obs, states, is_dead = jax.vmap(adapter.step)(jax.random.split(key, len(scripts)), states, actions)
        sight = jax.vmap(adapter.sight, in_axes=(0, 0, None))(obs, states, target)
        return states, jax.vmap(adapter.read)(obs, states), sight, is_dead

    index = {name: i for i, name in enumerate(adapter.vocabulary.actions)}
    draw = np.random.default_rng(0)
    rows, alive = [], []
    actions = np.full(len(scripts), index[scene.still], np.int32)
    for t in range(_STEPS + 1):
        key = jax.random.fold_in(jax.random.PRNGKey(1), t)
        states, row, sight, is_dead = step(key, states, jnp.asarray(actions))
        rows.append(_small(adapter, np.asarray(row)))
        alive.append(~np.asarray(is_dead))
        sight = np.asarray(sight)
        chosen = [_choose(scene, script, t, sight[e], draw, list(index)) for e, script in enumerate(scripts)]
        actions = np.array([index[name] for name in chosen], np.int32)
    return np.stack(rows, axis=1), np.stack(alive)


def _choose(scene: Scene, script: str, t: int, sight: np.ndarray, draw: _Draw, actions: list[str]) -> str:
    by_chance = actions[draw.integers(len(actions))]
    match script:
        case "still":
            return scene.still
        case "to_and_fro":
            return "left" if t % 2 else "right"
        case "errand":
            return scene.errand(t, sight)
        case "late" if t % 3:
            return scene.tool if t % 3 == 2 else scene.moves[draw.integers(len(scene.moves))]
    return by_chance


def _small(adapter: Adapter, rows: np.ndarray) -> np.ndarray:
    fluents = adapter.vocabulary.fluents
    return np.clip(rows, [f.low for f in fluents], [f.high for f in fluents]).astype(np.uint8)


if __name__ == "__main__":
    main()
