"""Learners that differ from FlowRL's in one respect, for comparison: the same harness with one part replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flowrl_core.compiled.functions import read_functions, trace_functions, write_functions
from flowrl_core.envs.adapter import Adapter
from flowrl_core.envs.automaton import PlanArrays, StepOutcome, blank_plan, judge
from flowrl_core.envs.worlds import WorldPool
from flowrl_core.learning.learner import Learner, hyperparameters, training_mode
from flowrl_core.learning.losses import LossParts
from flowrl_core.learning.ppo import Hyperparameters, _loss, _optimizer, _samples
from flowrl_core.learning.rollout import Trajectory
from flowrl_core.learning.shapes import Shapes
from flowrl_core.networks.moe import dense_apply
from flowrl_core.randomness import jax_stream
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.vocabulary.catalogue import vocabulary


def dense_learner(shapes: Shapes) -> Learner:
    """Return the dense mixture: every expert computes every sample, and one Adam serves all of them."""
    return _learner(
        shapes,
        {
            "flowrl_core.learning.rollout.routed_apply": dense_apply,
            "flowrl_core.compiled.functions.update": dense_update,
            "flowrl_core.compiled.functions.initial_optimizer_state": lambda params, hyper: _optimizer(hyper).init(
                params
            ),
        },
    )


def game_learner(shapes: Shapes) -> Learner:
    """Return plain PPO's learner: the reward is the game's own, whatever the plan's programs say."""
    return _learner(shapes, {"flowrl_core.learning.rollout.judge": game_judge})


def _learner(shapes: Shapes, replaced: dict[str, Any]) -> Learner:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as patches:
        for name, part in replaced.items():
            patches.enter_context(mock.patch(name, part))
        # Exported to files: a function traced at its first call would be traced without the patches.
        write_functions(trace_functions(shapes, hyperparameters(TrainingSpec())), Path(directory))
        functions = read_functions(Path(directory))
    blank = Learner(shapes, functions, WorldPool(np.empty(0), ()))
    learner = dataclasses.replace(blank, worlds=jax.device_get(blank.fill(jax_stream(0, "first worlds"))))
    warm_up(learner)
    return learner


def warm_up(learner: Learner) -> None:
    """Run every program once, so that nothing is compiled or loaded while something is measured."""
    key, plan = jax_stream(0, "warm up"), blank_plan(vocabulary(learner.shapes.env))
    state = learner.init(learner.functions.play.zeros("params"), key, key, 1)
    state, _, _ = learner.step(state, plan, hyperparameters(TrainingSpec()), training_mode(0.5), 1)
    jax.block_until_ready(state)


def one_optimizer_state(params: Any, hyper: Hyperparameters) -> Any:
    """Return Optax's state for all experts as one network."""
    return _optimizer(hyper).init(params)


def dense_update(
    network: Any,
    params: Any,
    optimizer_state: Any,
    trajectory: Trajectory,
    last_value: jax.Array,
    hyper: Hyperparameters,
    key: jax.Array,
    *,
    epochs: int,
    minibatch_size: int,
) -> tuple[Any, Any, LossParts]:
    """`ppo.update` with ordinary minibatches, drawn from the samples of all experts."""
    samples, expert = _samples(trajectory, last_value, hyper, jax.tree.leaves(params)[0].shape[0])
    num_samples = expert.shape[0]
    optimizer = _optimizer(hyper)

    def gradient_step(carry: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], LossParts]:
        params, state = carry
        batch = jax.tree.map(lambda leaf: leaf[rows], samples)
        mixture: Any = SimpleNamespace(apply=lambda params, x: dense_apply(network.apply, params, x, expert[rows]))
        weight = jnp.ones(rows.shape)
        gradient, parts = jax.grad(lambda p: _loss(mixture, p, batch, weight, hyper), has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), parts

    def epoch(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], LossParts]:
        rows = jax.random.permutation(key, num_samples).reshape(-1, minibatch_size)
        return jax.lax.scan(gradient_step, carry, rows)

    carry, parts = jax.lax.scan(epoch, (params, optimizer_state), jax.random.split(key, epochs))
    return *carry, jax.tree.map(jnp.mean, parts)


def game_judge(
    adapter: Adapter,
    plan: PlanArrays,
    step: jax.Array,
    guard: jax.Array,
    now: jax.Array,
    prev: jax.Array,
    start: jax.Array,
    shaping_weight: jax.Array | float = 0.0,
) -> StepOutcome:
    """Return Craftax-Classic's own reward: 1 for each achievement unlocked and 0.1 for each point of health."""
    del shaping_weight
    names = [fluent.name for fluent in adapter.vocabulary.fluents]
    weight = np.array([1.0 if name.startswith("ach.") else 0.1 if name == "health" else 0.0 for name in names])
    reward = (now - prev) @ jnp.asarray(weight, jnp.float32)
    return dataclasses.replace(judge(adapter, plan, step, guard, now, prev, start), reward=reward)
