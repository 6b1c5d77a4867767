"""The seam between FlowRL and an environment: a frozen record of pure functions."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.vocabulary.catalogue import environment
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["NUM_TARGET_FEATURES", "Adapter", "Terrain", "make_adapter", "plain_states"]

NUM_TARGET_FEATURES = 6


@dataclass(frozen=True)
class Terrain:
    """What a view shows of a world that is a grid, from which a chart is drawn (`envs.chart`).

    What fills a cell is a code from 1 to 30.

    Attributes:
        size: rows H and columns W of the world.
        view_size: rows and columns of the view, both odd, with the player in its middle.
        position: state -> i32[2], the player's row and column.
        view: observation -> u8[rows, columns], the code of each cell in view.
        targets: u32[targets], a bit for each code that is such a target.
        ground: u32[targets], a bit for each code beside which such a target may be found.
    """

    size: tuple[int, int]
    view_size: tuple[int, int]
    position: Callable[[Any], jax.Array]
    view: Callable[[jax.Array], jax.Array]
    targets: np.ndarray
    ground: np.ndarray


@dataclass(frozen=True)
class Adapter:
    """An environment as FlowRL sees it. All functions are for one environment; the caller vmaps.

    Attributes:
        vocabulary: names of fluents, actions and targets, in the order of the arrays below.
        num_flags: number of leading observation entries that are always exactly 0 or 1; they are stored as flags.
        reset: key -> (observation f32[D], state).
        step: (key, state, action i32[]) -> (observation f32[D], state, is_dead bool[]); never resets.
        read: (observation, state) -> f32[F], the base fluents in the vocabulary's order.
        sight: (observation, state, target i32[]) -> f32[6]: sign dx, sign dy, dx, dy (scaled to about 1), in view,
            adjacent, for the nearest target of that kind; all zeros if none is in view or `target` is -1.
        place: (state, values by base fluent) -> (observation, state), outside jit: the state with these fluents set.
            Other fluents keep their values, except places and distances that must change to make room. Raises
            InputError, with the fluent as its field, if a fluent cannot have its value.
        deadly: (observation, state) -> bool[A], the actions that are seen to kill; None if the environment names none.
            Action masks forbid them.
        canonical: (observation, sight) -> (observation, sight, actions i32[A]): the same view in a standard
            orientation, and for each action in that view the environment's own. Views that differ by a symmetry of the
            environment become one, so that what an expert learns in one it knows in all (Kaba et al. 2023,
            arXiv:2211.06489). None if the environment declares no symmetry.
        terrain: what a chart of the world is drawn from; None if the environment's world is not a grid.
        render: state -> u8[H, W, 3], a picture of it, outside jit; None if the environment has none.
    """

    vocabulary: Vocabulary
    num_flags: int
    reset: Callable[[jax.Array], tuple[jax.Array, Any]]
    step: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any, jax.Array]]
    read: Callable[[jax.Array, Any], jax.Array]
    sight: Callable[[jax.Array, Any, jax.Array], jax.Array]
    place: Callable[[Any, Mapping[str, float]], tuple[jax.Array, Any]]
    deadly: Callable[[jax.Array, Any], jax.Array] | None = None
    canonical: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]] | None = None
    terrain: Terrain | None = None
    render: Callable[[Any], np.ndarray] | None = None

    @property
    def num_actions(self) -> int:
        """Number of actions A."""
        return len(self.vocabulary.actions)

    @property
    def observation_size(self) -> int:
        """Length D of the environment's own observation."""
        return self.vocabulary.observation_size


def make_adapter(env: str) -> Adapter:
    """Return the adapter of an environment, by name.

    Raises:
        InputError: no such environment.
    """
    adapter: Adapter = pkgutil.resolve_name(environment(env).adapter)()
    return adapter


def plain_states(adapter: Adapter) -> Adapter:
    """Return the same environment with states as tuples of arrays.

    A function exported to a file can then be called without importing the classes of the game.
    """
    _, shapes = jax.eval_shape(adapter.reset, jax.ShapeDtypeStruct((2,), jnp.uint32))
    structure = jax.tree.structure(shapes)

    def plain(state: Any) -> tuple[jax.Array, ...]:
        return tuple(jax.tree.leaves(state))

    def rich(state: tuple[jax.Array, ...]) -> Any:
        return jax.tree.unflatten(structure, state)

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        obs, state = adapter.reset(key)
        return obs, plain(state)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
        obs, after, is_dead = adapter.step(key, rich(state), action)
        return obs, plain(after), is_dead

    def place(state: Any, values: Mapping[str, float]) -> tuple[jax.Array, Any]:
        obs, after = adapter.place(rich(state), values)
        return obs, plain(after)

    render, deadly = adapter.render, adapter.deadly
    return dataclasses.replace(
        adapter,
        reset=reset,
        step=step,
        read=lambda obs, state: adapter.read(obs, rich(state)),
        sight=lambda obs, state, target: adapter.sight(obs, rich(state), target),
        place=place,
        deadly=None if deadly is None else lambda obs, state: deadly(obs, rich(state)),
        render=None if render is None else lambda state: render(rich(state)),
    )
