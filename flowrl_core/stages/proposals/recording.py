"""Records the transitions that are shipped for an environment: what a few thousand steps look like there.

    python -m flowrl_core.stages.proposals.recording craftax-classic

Four scripts play in new worlds: by chance, standing still, to and fro, and an errand that collects. A fifth plays by
chance in worlds that were changed by hand: full pockets, and the things that are found late all around the player.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import Adapter, make_adapter
from flowrl_core.proposals.recorded_transitions import RecordedTransitions, save_transitions, transitions_file

__all__ = ["main", "record"]

logger = logging.getLogger(__name__)

_STEPS = 64
_RESETS = 128
_EPISODES = {"chance": 16, "still": 4, "to_and_fro": 8, "errand": 16, "late": 36}

_Draw = np.random.Generator


@dataclass(frozen=True)
class _Scene:
    """What recording needs to know of an environment.

    Attributes:
        still: an action that changes nothing.
        moves: the actions that move the player.
        tool: the action that collects; a third of the actions of `late` are this one, and a third are moves.
        target: what the errand is told the direction of.
        errand: (step, sight f32[6]) -> the errand's next action.
        late: (draw, state) -> the state as it could be late in an episode, in numpy.
    """

    still: str
    moves: tuple[str, ...]
    tool: str
    target: str
    errand: Callable[[int, np.ndarray], str]
    late: Callable[[_Draw, Any], Any]


def record(env: str) -> RecordedTransitions:
    """The recorded transitions of an environment, the same at every call.

    Raises:
        InputError: no such environment.
    """
    adapter = make_adapter(env)
    scene = _SCENES[adapter.vocabulary.env]
    scripts = tuple(name for name, number in _EPISODES.items() for _ in range(number))
    obs, worlds = jax.jit(jax.vmap(adapter.reset))(jax.random.split(jax.random.PRNGKey(0), _RESETS))
    resets = np.asarray(jax.vmap(adapter.read)(obs, worlds))
    states = _begin(scene, scripts, jax.device_get(worlds))
    rows, is_alive = _play(adapter, scene, scripts, states)
    # An episode ends with the step in which the player dies; the first row is that after one step of standing still.
    lengths = np.where(is_alive.all(axis=0), len(is_alive), np.argmin(is_alive, axis=0) + 1) - 1
    return RecordedTransitions(adapter.vocabulary, rows, lengths.astype(np.int64), scripts, _small(adapter, resets))


def main(arguments: list[str] | None = None) -> None:
    """Record the transitions of the environments named and put the files where they are shipped."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for env in sys.argv[1:] if arguments is None else arguments:
        path = transitions_file(env)
        recorded = record(env)
        save_transitions(recorded, path)
        logger.info("%s: %d transitions, %d bytes", path, recorded.lengths.sum(), path.stat().st_size)


def _begin(scene: _Scene, scripts: tuple[str, ...], worlds: Any) -> Any:
    """The state in which each episode begins, leaves [E, ...]."""
    states = []
    for e, script in enumerate(scripts):
        state = jax.tree.map(lambda leaf, e=e: np.asarray(leaf[e]), worlds)
        states.append(scene.late(np.random.default_rng(e), state) if script == "late" else state)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _play(adapter: Adapter, scene: _Scene, scripts: tuple[str, ...], states: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows u8[E, L + 1, F] and bool[L + 1, E], whether the player is alive then."""
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


def _choose(scene: _Scene, script: str, t: int, sight: np.ndarray, draw: _Draw, actions: list[str]) -> str:
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


def _corridor_errand(t: int, sight: np.ndarray) -> str:
    """To the mine, dig three, to the bench, make something of it."""
    del sight
    number, phase = divmod(t, 16)
    return (["right"] * 5 + ["dig"] * 3 + ["left"] * 5 + [f"make_{'bcdefghijklmno'[number]}"] * 3)[phase]


def _corridor_late(draw: _Draw, state: Any) -> Any:
    return dataclasses.replace(state, items=draw.integers(0, 9, state.items.shape).astype(state.items.dtype))


def _craftax_errand(t: int, sight: np.ndarray) -> str:
    """Towards the nearest tree in view, and cut it."""
    if t % 2:
        return "do"
    x, y, dx, dy = sight[:4]
    if not sight[4]:
        return "right" if t % 8 else "down"
    if abs(dx * 4) >= abs(dy * 3):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _craftax_late(draw: _Draw, state: Any) -> Any:
    """Some of everything in hand, some achievements, and a patch of all kinds of block around the player."""
    from craftax.craftax_classic.constants import BlockType

    kinds = ["TREE", "STONE", "COAL", "IRON", "DIAMOND", "WATER", "CRAFTING_TABLE", "FURNACE", "RIPE_PLANT"]
    blocks = [BlockType[name].value for name in kinds + ["GRASS"] * 10]
    y, x = (int(v) for v in state.player_position)
    world = np.array(state.map)
    patch = world[max(y - 4, 0) : y + 5, max(x - 5, 0) : x + 6]
    patch[...] = draw.choice(blocks, patch.shape)
    world[y, x] = BlockType.GRASS.value
    held: Mapping[str, Any] = {
        field.name: np.int32(draw.integers(0, 9)) for field in dataclasses.fields(state.inventory)
    }
    return state.replace(
        map=world.astype(state.map.dtype),
        inventory=state.inventory.replace(**held),
        achievements=draw.random(state.achievements.shape) < 0.5,
        **{f"player_{vital}": np.int32(draw.integers(3, 10)) for vital in ("food", "drink", "energy")},
    )


_SCENES = {
    "corridor": _Scene("make_p", ("left", "right"), "dig", "mine", _corridor_errand, _corridor_late),
    "craftax-classic": _Scene("noop", ("left", "right", "up", "down"), "do", "tree", _craftax_errand, _craftax_late),
}


if __name__ == "__main__":
    main()
