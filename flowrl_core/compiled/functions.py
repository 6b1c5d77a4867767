"""The functions of a learner, traced from the environment's code or read from equivalent files.

Tracing imports the game and takes seconds. So it is done once, and its result is written with `jax.export`; a process
that reads the files needs neither the game nor the network's code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from jax import export

from flowrl_core.envs.automaton import NUM_STEP_FEATURES, blank_plan
from flowrl_core.envs.snapshots import no_snapshots
from flowrl_core.envs.worlds import empty_pool, replace_used, staggered
from flowrl_core.learning.functions import ARGUMENTS, DONATED, Function, Functions
from flowrl_core.learning.learner import training_mode
from flowrl_core.learning.losses import LossParts
from flowrl_core.learning.ppo import Hyperparameters, initial_optimizer_state, update
from flowrl_core.learning.rollout import RolloutMode, begin, rollout
from flowrl_core.programs.tables import Table
from flowrl_core.trees import exportable
from flowrl_core.vocabulary.catalogue import vocabulary

if TYPE_CHECKING:
    from flowrl_core.learning.shapes import Shapes

__all__ = ["read_functions", "trace_functions", "write_functions"]

for _cls in (Hyperparameters, LossParts, RolloutMode, Table, optax.ScaleByAdamState, optax.EmptyState):
    exportable(_cls)


def trace_functions(shapes: Shapes, hyper: Hyperparameters) -> Functions:
    """Return the functions of these shapes, traced from the environment's and the network's code."""
    from flowrl_core.envs.adapter import make_adapter, plain_states
    from flowrl_core.envs.chart import charted
    from flowrl_core.networks.policy_value import ActorCritic

    adapter = plain_states(charted(make_adapter(shapes.env)))
    network = ActorCritic(width=shapes.width, num_actions=adapter.num_actions)
    bodies: dict[str, Callable[..., Any]] = {
        "renew": functools.partial(replace_used, adapter),
        "start": functools.partial(begin, adapter, batch=shapes.num_envs),
        "play": functools.partial(rollout, adapter, network, length=shapes.rollout_length),
        "improve": functools.partial(update, network, epochs=shapes.epochs, minibatch_size=shapes.minibatch_size),
    }
    calls = {name: jax.jit(body, donate_argnums=_donated(name)) for name, body in bodies.items()}

    key, mode = np.zeros(2, np.uint32), training_mode()
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
    return Functions(**{name: Function(calls[name], _named(name, _shapes(arguments[name]))) for name in ARGUMENTS})


def write_functions(functions: Functions, directory: Path) -> None:
    """Write the traced functions to the directory, one file each."""
    for name in ARGUMENTS:
        function: Function = getattr(functions, name)
        exported = export.export(function.jitted)(*function.arguments.values())
        (directory / f"{name}.stablehlo").write_bytes(exported.serialize())


def read_functions(directory: Path) -> Functions:
    """Return the functions that `write_functions` wrote."""
    return Functions(**{name: _read(directory / f"{name}.stablehlo", name) for name in ARGUMENTS})


def _read(path: Path, name: str) -> Function:
    exported = export.deserialize(bytearray(path.read_bytes()))
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in exported.in_avals]
    arguments, _ = jax.tree.unflatten(exported.in_tree, shapes)
    return Function(jax.jit(exported.call, donate_argnums=_donated(name)), _named(name, arguments))


def _named(name: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(ARGUMENTS[name], arguments, strict=True))


def _donated(name: str) -> tuple[int, ...]:
    return tuple(ARGUMENTS[name].index(argument) for argument in DONATED[name])


def _stacked_params(shapes: Shapes) -> Any:
    from flowrl_core.networks.initialisation import initial_params

    words = vocabulary(shapes.env)
    size = words.observation_size + NUM_STEP_FEATURES
    one = initial_params(np.random.default_rng(0), size, shapes.width, len(words.actions))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((shapes.num_experts, *leaf.shape), leaf.dtype), one)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree)
