"""The functions that are compiled: traced from the environment's code, or read from files that say the same.

Tracing imports the game and takes seconds. So it is done once, and its result is written with `jax.export`; a process
that reads the files needs neither the game nor the network's code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from jax import export

from flowrl_core.envs.automaton import blank_plan
from flowrl_core.envs.snapshots import no_snapshots
from flowrl_core.envs.worlds import empty_pool, replace_used, staggered
from flowrl_core.learning.losses import LossParts
from flowrl_core.learning.ppo import Hyperparameters, initial_optimizer_state, update
from flowrl_core.learning.rollout import RolloutMode, begin, rollout
from flowrl_core.programs.tables import Table
from flowrl_core.trees import exportable
from flowrl_core.vocabulary.environments import vocabulary

if TYPE_CHECKING:
    from flowrl_core.learning.learner import Shapes

__all__ = ["Function", "Functions", "read_functions", "trace_functions", "write_functions"]

for _cls in (Hyperparameters, LossParts, RolloutMode, Table, optax.ScaleByAdamState, optax.EmptyState):
    exportable(_cls)


@dataclass(frozen=True)
class Function:
    """A function for arguments of fixed shapes, compiled when it is called first.

    Attributes:
        jitted: the function under `jax.jit`; it consumes the arguments that `_DONATED` names.
        arguments: for each argument its tree of `jax.ShapeDtypeStruct`.
    """

    jitted: Any
    arguments: tuple[Any, ...]

    def __call__(self, *args: Any) -> Any:
        """What the function returns; arguments are trees of numpy or JAX arrays."""
        return self._compiled(*args)

    def zeros(self, number: int) -> Any:
        """Zeros in the shape of an argument, on the device."""
        return jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.arguments[number]))

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        # By shapes alone. `jax.jit` compiles again for a numpy array where it had an array of the device.
        compiled: Callable[..., Any] = self.jitted.lower(*self.arguments).compile()
        return compiled


@dataclass(frozen=True)
class Functions:
    """All that is compiled for one set of shapes.

    Attributes:
        renew: (pool, use, key, max_uses) -> (pool, use); see `worlds.replace_used`.
        start: (pool, use, mode) -> (playing, use); see `rollout.begin`.
        play: (params, playing, pool, use, snapshots, plan, mode, key) -> see `rollout.rollout`.
        improve: (params, optimizer state, trajectory, last value, hyper, key) -> see `ppo.update`.
    """

    renew: Function
    start: Function
    play: Function
    improve: Function


_NAMES = tuple(field.name for field in fields(Functions))
_DONATED = {"renew": (0, 1), "start": (), "play": (1, 3, 4), "improve": (0, 1)}
"""Arguments whose memory the result may take; whoever calls has no more use for them."""


def trace_functions(shapes: Shapes, hyper: Hyperparameters) -> Functions:
    """The functions of these shapes, from the environment's and the network's code."""
    from flowrl_core.envs.adapter import make_adapter, plain_states
    from flowrl_core.networks.policy_value import ActorCritic

    adapter = plain_states(make_adapter(shapes.env))
    network = ActorCritic(width=shapes.width, num_actions=adapter.num_actions)
    bodies: dict[str, Callable[..., Any]] = {
        "renew": functools.partial(replace_used, adapter),
        "start": functools.partial(begin, adapter, batch=shapes.num_envs),
        "play": functools.partial(rollout, adapter, network, length=shapes.rollout_length),
        "improve": functools.partial(update, network, epochs=shapes.epochs, minibatch_size=shapes.minibatch_size),
    }
    calls = {name: jax.jit(body, donate_argnums=_DONATED[name]) for name, body in bodies.items()}

    key, mode = np.zeros(2, np.uint32), RolloutMode(np.bool_(False), np.float32(0))
    pool = jax.eval_shape(functools.partial(empty_pool, adapter, shapes.world_pool))
    use = staggered(shapes.world_pool, 1)
    params = _stacked_params(shapes)
    playing, _ = jax.eval_shape(calls["start"], pool, use, mode)
    snapshots = jax.eval_shape(functools.partial(no_snapshots, capacity=shapes.snapshot_capacity), pool)
    play = (params, playing, pool, use, snapshots, blank_plan(vocabulary(shapes.env)), mode, key)
    _, _, _, trajectory, last_value, _ = jax.eval_shape(calls["play"], *play)
    state = jax.eval_shape(initial_optimizer_state, params, hyper)
    arguments: dict[str, tuple[Any, ...]] = {
        "renew": (pool, use, key, np.int32(1)),
        "start": (pool, use, mode),
        "play": play,
        "improve": (params, state, trajectory, last_value, hyper, key),
    }
    return Functions(**{name: Function(calls[name], _shapes(arguments[name])) for name in _NAMES})


def write_functions(functions: Functions, directory: Path) -> None:
    """Write the traced functions to files of `directory`, one each."""
    for name in _NAMES:
        function: Function = getattr(functions, name)
        exported = export.export(function.jitted)(*function.arguments)
        (directory / f"{name}.stablehlo").write_bytes(exported.serialize())


def read_functions(directory: Path) -> Functions:
    """The functions that `write_functions` wrote."""
    return Functions(**{name: _read(directory / f"{name}.stablehlo", _DONATED[name]) for name in _NAMES})


def _read(path: Path, donated: tuple[int, ...]) -> Function:
    exported = export.deserialize(bytearray(path.read_bytes()))
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in exported.in_avals]
    arguments, _ = jax.tree.unflatten(exported.in_tree, shapes)
    return Function(jax.jit(exported.call, donate_argnums=donated), arguments)


def _stacked_params(shapes: Shapes) -> Any:
    from flowrl_core.envs.automaton import NUM_STEP_FEATURES
    from flowrl_core.networks.initialisation import initial_params

    words = vocabulary(shapes.env)
    size = words.observation_size + NUM_STEP_FEATURES
    one = initial_params(np.random.default_rng(0), size, shapes.width, len(words.actions))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((shapes.num_experts, *leaf.shape), leaf.dtype), one)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree)
