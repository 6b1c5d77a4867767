"""The learner: one record of compiled functions that serves every plan of the same shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flowrl_core.envs.adapter import Adapter, make_adapter
from flowrl_core.envs.automaton import NUM_STEP_FEATURES, PlanArrays
from flowrl_core.envs.snapshots import Snapshots, no_snapshots
from flowrl_core.envs.worlds import PoolUse, WorldPool, empty_pool, first_use, replace_used
from flowrl_core.learning.losses import LossParts
from flowrl_core.learning.ppo import Hyperparameters, initial_optimizer_state, update
from flowrl_core.learning.rollout import Playing, RolloutMode, RolloutStats, Trajectory, begin, rollout
from flowrl_core.networks.policy_value import ActorCritic
from flowrl_core.specs import TrainingSpec

__all__ = ["Learner", "LearnerState", "Shapes", "hyperparameters", "make_learner", "shapes_of"]


@dataclass(frozen=True)
class Shapes:
    """All that decides what is compiled. Everything else is data."""

    env: str
    num_envs: int
    rollout_length: int
    num_experts: int
    width: int
    epochs: int
    minibatch_size: int
    world_pool: int
    snapshot_capacity: int


def shapes_of(env: str, training: TrainingSpec, num_local_experts: int) -> Shapes:
    """The shapes of a run; room for experts grows by powers of two, so that runs of different plans share what is
    compiled.
    """
    room = training.max_experts
    while room < num_local_experts:
        room *= 2
    return Shapes(
        env=env,
        num_envs=training.num_envs,
        rollout_length=training.rollout_length,
        num_experts=room,
        width=training.width,
        epochs=training.epochs,
        minibatch_size=min(training.minibatch_size, training.num_envs * training.rollout_length),
        world_pool=max(training.world_pool, training.num_envs),
        snapshot_capacity=training.snapshot_capacity,
    )


def hyperparameters(training: TrainingSpec) -> Hyperparameters:
    """The numbers of an update as arrays of fixed dtype, so that no value makes a new program."""
    return Hyperparameters(
        learning_rate=np.float32(training.learning_rate),
        discount=np.float32(training.discount),
        gae_lambda=np.float32(training.gae_lambda),
        clip=np.float32(training.clip),
        entropy_weight=np.float32(training.entropy_weight),
        value_weight=np.float32(training.value_weight),
        max_grad_norm=np.float32(training.max_grad_norm),
        is_bootstrap=np.bool_(training.credit == "bootstrap"),
    )


@struct.dataclass
class LearnerState:
    """All that the next update needs.

    Attributes:
        params, optimizer_state: of the K experts, leaves [K, ...].
        playing, pool, use, snapshots: the environments and where they restart from.
        key: u32[2]; world_key: u32[2], the stream of new worlds.
        num_updates: i32[].
        routed_frames: i32[K] frames in which each expert acted.
    """

    params: Any
    optimizer_state: Any
    playing: Playing
    pool: WorldPool
    use: PoolUse
    snapshots: Snapshots
    key: jax.Array
    world_key: jax.Array
    num_updates: jax.Array
    routed_frames: jax.Array


@dataclass(frozen=True)
class Learner:
    """Compiled functions for one set of shapes.

    Attributes:
        adapter, shapes: what they were made for.
        observation_size: length of what an expert sees.
        init: (params, hyper, world_key, key, max_uses) -> LearnerState at the start of training.
        step: (state, plan, hyper, snapshot_fraction, max_uses) -> (state, RolloutStats, LossParts): one rollout and
            one update.
        fill: (key) -> WorldPool of fresh worlds.
        begin: (pool) -> Playing at the start of evaluation.
        play: (params, playing, pool, plan, key) -> (Playing, Trajectory): T steps of evaluation.
    """

    adapter: Adapter
    shapes: Shapes
    observation_size: int
    init: Callable[..., LearnerState]
    step: Callable[..., tuple[LearnerState, RolloutStats, LossParts]]
    fill: Callable[[jax.Array], WorldPool]
    begin: Callable[[WorldPool], Playing]
    play: Callable[..., tuple[Playing, Trajectory]]


@functools.lru_cache(maxsize=4)
def make_learner(shapes: Shapes) -> Learner:
    """The learner of these shapes; the same one for the same shapes, so nothing is traced twice in a process."""
    adapter = make_adapter(shapes.env)
    network = ActorCritic(width=shapes.width, num_actions=adapter.num_actions)
    renew = jax.jit(functools.partial(replace_used, adapter), donate_argnums=(0, 1))
    start = jax.jit(functools.partial(begin, adapter), static_argnums=(2,))
    play = jax.jit(
        functools.partial(rollout, adapter, network, length=shapes.rollout_length),
        donate_argnums=(1, 3, 4),
    )
    improve = jax.jit(
        functools.partial(update, network, epochs=shapes.epochs, minibatch_size=shapes.minibatch_size),
        donate_argnums=(0, 1),
    )
    blank = functools.partial(empty_pool, adapter, shapes.world_pool)

    def init(params: Any, hyper: Hyperparameters, world_key: jax.Array, key: jax.Array, max_uses: int) -> LearnerState:
        pool, use = renew(blank(), _device(first_use(shapes.world_pool)), world_key, np.int32(max_uses))
        playing, use = start(pool, use, shapes.num_envs, _mode(False, 0.0))
        return LearnerState(
            params=_device(params),
            optimizer_state=initial_optimizer_state(_device(params), hyper),
            playing=playing,
            pool=pool,
            use=use,
            snapshots=no_snapshots(pool, shapes.snapshot_capacity),
            key=key,
            world_key=world_key,
            num_updates=jnp.int32(0),
            routed_frames=jnp.zeros(shapes.num_experts, jnp.int32),
        )

    def step(
        state: LearnerState, plan: PlanArrays, hyper: Hyperparameters, snapshot_fraction: float, max_uses: int
    ) -> tuple[LearnerState, RolloutStats, LossParts]:
        key, play_key, improve_key = _split3(state.key)
        pool, use = renew(state.pool, state.use, state.world_key, np.int32(max_uses))
        mode = _mode(False, snapshot_fraction)
        playing, use, snapshots, trajectory, last_value, stats = play(
            state.params, state.playing, pool, use, state.snapshots, plan, mode, play_key
        )
        params, optimizer_state, parts = improve(
            state.params, state.optimizer_state, trajectory, last_value, hyper, improve_key
        )
        state = LearnerState(
            params=params,
            optimizer_state=optimizer_state,
            playing=playing,
            pool=pool,
            use=use,
            snapshots=snapshots,
            key=key,
            world_key=state.world_key,
            num_updates=state.num_updates + 1,
            routed_frames=state.routed_frames + stats.routed_frames,
        )
        return state, stats, parts

    def fill(key: jax.Array) -> WorldPool:
        return renew(blank(), _device(first_use(shapes.world_pool)), key, np.int32(1))[0]

    def begin_fixed(pool: WorldPool) -> Playing:
        return start(pool, _no_use(shapes), shapes.num_envs, _mode(True, 0.0))[0]

    def play_fixed(
        params: Any, playing: Playing, pool: WorldPool, plan: PlanArrays, key: jax.Array
    ) -> tuple[Playing, Trajectory]:
        snapshots = no_snapshots(pool, shapes.snapshot_capacity)
        playing, _, _, trajectory, _, _ = play(
            params, playing, pool, _no_use(shapes), snapshots, plan, _mode(True, 0.0), key
        )
        return playing, trajectory

    return Learner(
        adapter=adapter,
        shapes=shapes,
        observation_size=adapter.observation_size + NUM_STEP_FEATURES,
        init=init,
        step=step,
        fill=fill,
        begin=begin_fixed,
        play=play_fixed,
    )


@jax.jit
def _split3(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    a, b, c = jax.random.split(key, 3)
    return a, b, c


def _mode(is_fixed: bool, snapshot_fraction: float) -> RolloutMode:
    return RolloutMode(np.bool_(is_fixed), np.float32(snapshot_fraction))


def _no_use(shapes: Shapes) -> PoolUse:
    return _device(PoolUse(np.zeros(shapes.world_pool, np.int32), np.int32(0), np.int32(0)))


def _device(tree: Any) -> Any:
    """The tree on the device, strongly typed: a numpy leaf and a device leaf would be two programs."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, getattr(leaf, "dtype", None)), tree)
