"""The seam between FlowRL and an environment: one frozen record of pure functions for each."""

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

__all__ = ["NUM_TARGET_FEATURES", "Adapter", "make_adapter", "plain_states"]

NUM_TARGET_FEATURES = 6


@dataclass(frozen=True)
class Adapter:
    """An environment as FlowRL sees it. All functions are for one environment; the caller vmaps.

    Attributes:
        vocabulary: names of fluents, actions and targets, in the order that the arrays below use.
        num_flags: how many leading entries of the observation are always exactly 0 or 1; they are stored as such.
        reset: key -> (observation f32[D], state).
        step: (key, state, action i32[]) -> (observation f32[D], state, is_dead bool[]); never resets by itself.
        read: (observation, state) -> f32[F], the base fluents in the vocabulary's order.
        sight: (observation, state, target i32[]) -> f32[6]: sign dx, sign dy, dx, dy (scaled to about 1), in view,
            adjacent, of the nearest target of that kind; all zeros if none is in view or `target` is -1.
        place: (state, values by base fluent) -> (observation, state), the state in which these fluents have these
            values, outside jit. Fluents that are not named stay as they are, but for places and distances that give
            way. It raises InputError, with the fluent as its field, where one cannot have its value.
        render: state -> u8[H, W, 3], a picture of it, outside jit; None: there is none.
    """

    vocabulary: Vocabulary
    num_flags: int
    reset: Callable[[jax.Array], tuple[jax.Array, Any]]
    step: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any, jax.Array]]
    read: Callable[[jax.Array, Any], jax.Array]
    sight: Callable[[jax.Array, Any, jax.Array], jax.Array]
    place: Callable[[Any, Mapping[str, float]], tuple[jax.Array, Any]]
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
    """The same environment with tuples of arrays for states.

    A function that was exported to a file can then be called without the classes of the game, and so without importing
    it.
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

    render = adapter.render
    return dataclasses.replace(
        adapter,
        reset=reset,
        step=step,
        read=lambda obs, state: adapter.read(obs, rich(state)),
        sight=lambda obs, state, target: adapter.sight(obs, rich(state), target),
        place=place,
        render=None if render is None else lambda state: render(rich(state)),
    )
