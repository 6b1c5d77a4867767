"""Rollouts: B environments play a plan for T steps with one expert acting in each."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from flowrl_core.envs.adapter import NUM_TARGET_FEATURES, Adapter
from flowrl_core.envs.automaton import PlanArrays, judge, read_registers, step_features
from flowrl_core.envs.guards import NONE, on_duty
from flowrl_core.envs.snapshots import Snapshots, pick, record
from flowrl_core.envs.worlds import PoolUse, WorldPool, draw, put_rows
from flowrl_core.networks.moe import routed_apply
from flowrl_core.skills.model import MAX_GUARDS, MAX_STEPS
from flowrl_core.trees import tree_class
from flowrl_core.types import Leaf, Params, View

if TYPE_CHECKING:
    from flowrl_core.networks.policy_value import ActorCritic

__all__ = [
    "FORBIDDEN",
    "Inputs",
    "Playing",
    "RolloutMode",
    "RolloutStats",
    "Trajectory",
    "begin",
    "expert_inputs",
    "narrow",
    "rollout",
    "widen",
]

FORBIDDEN = -1e9
"""Logit of an action that a step may not use."""


@tree_class
class Playing:
    """B environments in the middle of their episodes.

    Attributes:
        obs: f32[B, D]; state: leaves [B, ...].
        now, start: f32[B, F] current base fluents, and those at the start of the current plan step.
        step: i32[B] current plan step.
        time: i32[B] steps of this episode so far.
        episode: i32[B] episodes finished.
        is_snapshot: bool[B] whether the episode began from an entry snapshot.
        guard: i32[B] the guard that acts next; `guards.NONE`: the plan's own expert.
    """

    obs: jax.Array
    state: Any
    now: jax.Array
    start: jax.Array
    step: jax.Array
    time: jax.Array
    episode: jax.Array
    is_snapshot: jax.Array
    guard: jax.Array


class RolloutMode(NamedTuple):
    """How resets choose their start, and what is rewarded. It is data, so training and evaluation are one program.

    In evaluation (`is_fixed`) environment b plays world b + B * k in its k-th episode. In training worlds are drawn in
    turn, and a share `snapshot_fraction` of the resets starts from entry snapshots, of step s with a frequency in
    proportion to `snapshot_weight` f32[S]. `shaping_weight` is the weight of rewards besides the steps' own.
    """

    is_fixed: Leaf
    snapshot_fraction: Leaf
    snapshot_weight: Leaf
    shaping_weight: Leaf


@tree_class
class Inputs:
    """The inputs of experts in compact, lossless form: a flag takes one byte, not four.

    Attributes:
        flags: bool[..., N] the leading inputs, which are 0 or 1.
        numbers: f32[..., D + 9 - N] the remaining inputs.
    """

    flags: jax.Array
    numbers: jax.Array


@tree_class
class Trajectory:
    """The record of T steps of B environments; every leaf [T, B, ...].

    Attributes:
        inputs: the expert's inputs, see `widen`.
        expert: i32 local expert that acted.
        allowed: bool[T, B, A] the actions that it could choose, as it sees them (see `expert_inputs`).
        action: its choice among them.
        log_prob, value, reward: of that expert.
        step: i32 plan step.
        guard: i32 guard that acted, or `guards.NONE`.
        is_boundary: the step was done or the episode ended, so the expert can earn no more.
        is_over: the episode ended.
        is_done: the step was done.
        is_finished: the whole plan was done.
        is_dead: the player died.
        is_stranded: the player lacks what later steps need and this step cannot gain.
        is_snapshot, episode: see Playing; time: i32 length of the episode including this step.
    """

    inputs: Inputs
    expert: jax.Array
    allowed: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    step: jax.Array
    guard: jax.Array
    is_boundary: jax.Array
    is_over: jax.Array
    is_done: jax.Array
    is_finished: jax.Array
    is_dead: jax.Array
    is_stranded: jax.Array
    is_snapshot: jax.Array
    episode: jax.Array
    time: jax.Array


@tree_class
class RolloutStats:
    """Counts of one rollout.

    Attributes:
        attempts, successes: i32[S] finished attempts at each plan step, and those that succeeded.
        episodes, finished: i32[] ended episodes that began in a world (not a snapshot), and those of them that finished
            the whole plan.
        routed_frames: i32[K] frames in which each expert acted.
        guarded: f32[G] share of the frames in which each guard acted.
        reward: f32[] mean reward per frame.
    """

    attempts: jax.Array
    successes: jax.Array
    episodes: jax.Array
    finished: jax.Array
    routed_frames: jax.Array
    guarded: jax.Array
    reward: jax.Array


def begin(adapter: Adapter, pool: WorldPool, use: PoolUse, mode: RolloutMode, *, batch: int) -> tuple[Playing, PoolUse]:
    """Return B environments at the start of their first episode."""
    drawn, after = draw(use, jnp.ones(batch, bool))
    index = jnp.where(mode.is_fixed, jnp.arange(batch) % pool.obs.shape[0], drawn)
    obs, state = jax.tree.map(lambda leaf: leaf[index], (pool.obs, pool.state))
    now = jax.vmap(adapter.read)(obs, state)
    zeros = jnp.zeros(batch, jnp.int32)
    return Playing(obs, state, now, now, zeros, zeros, zeros, jnp.zeros(batch, bool), zeros + NONE), after


def expert_inputs(adapter: Adapter, plan: PlanArrays, playing: Playing) -> tuple[jax.Array, jax.Array]:
    """Return the inputs of the acting experts f32[B, D + 9], and the environment's action for each of theirs i32[B, A].

    The two lists of actions differ for an expert that sees the environment's canonical view. One without a compass is
    told of targets in view alone.
    """
    features = step_features(
        adapter, plan, playing.step, playing.guard, playing.obs, playing.state, playing.now, playing.start
    )
    obs, sight = playing.obs, features[:, -NUM_TARGET_FEATURES:]
    actions = jnp.broadcast_to(jnp.arange(adapter.num_actions), (obs.shape[0], adapter.num_actions))
    guard = playing.guard
    view = jnp.where(guard >= 0, jnp.asarray(plan.guards.view)[guard], plan.view[playing.step])[:, None]
    if adapter.terrain is not None:
        sight = jnp.where(((view & View.COMPASS) > 0) | (sight[:, 4:5] > 0.5), sight, 0.0)
    if adapter.canonical is not None:
        obs, sight, actions = (
            jnp.where((view & View.CANONICAL) > 0, canonical, seen)
            for canonical, seen in zip(jax.vmap(adapter.canonical)(obs, sight), (obs, sight, actions), strict=True)
        )
    return jnp.concatenate([obs, features[:, :-NUM_TARGET_FEATURES], sight], axis=-1), actions


def narrow(inputs: jax.Array, num_flags: int) -> Inputs:
    """Return the inputs f32[..., D + 9] in compact form; the first `num_flags` are 0 or 1."""
    return Inputs(inputs[..., :num_flags] > 0.5, inputs[..., num_flags:])


def widen(inputs: Inputs) -> jax.Array:
    """Return the original inputs f32[..., D + 9], bit for bit."""
    return jnp.concatenate([inputs.flags.astype(jnp.float32), inputs.numbers], axis=-1)


def rollout(
    adapter: Adapter,
    network: ActorCritic,
    params: Params,
    playing: Playing,
    pool: WorldPool,
    use: PoolUse,
    snapshots: Snapshots,
    plan: PlanArrays,
    mode: RolloutMode,
    key: jax.Array,
    *,
    length: int,
) -> tuple[Playing, PoolUse, Snapshots, Trajectory, jax.Array, RolloutStats]:
    """Play `length` steps; the result includes the value f32[B] of the states after the last step.

    Args:
        params: stacked expert parameters, leaves [K, ...].
        length: T.
    """

    def act(playing: Playing, key: jax.Array) -> tuple[jax.Array, ...]:
        inputs, actions = expert_inputs(adapter, plan, playing)
        expert = _acting(plan, playing)
        logits, value = routed_apply(network.apply, params, inputs, expert)
        allowed = jnp.take_along_axis(_allowed(adapter, plan, playing), actions, axis=1)
        log_probs = jax.nn.log_softmax(jnp.where(allowed, logits, FORBIDDEN))
        action = jax.random.categorical(key, log_probs)
        log_prob, env_action = (
            jnp.take_along_axis(each, action[:, None], axis=1)[:, 0] for each in (log_probs, actions)
        )
        return inputs, expert, allowed, action, log_prob, value, env_action

    def advance(carry: tuple[Playing, PoolUse, Snapshots], key: jax.Array) -> tuple[Any, Trajectory]:
        playing, use, snapshots = carry
        act_key, env_key, start_key = jax.random.split(key, 3)
        inputs, expert, allowed, action, log_prob, value, env_action = act(playing, act_key)
        batch = action.shape[0]
        obs, state, is_dead = jax.vmap(adapter.step)(jax.random.split(env_key, batch), playing.state, env_action)
        now = jax.vmap(adapter.read)(obs, state)
        verdict = judge(
            adapter, plan, playing.step, playing.guard, now, playing.now, playing.start, mode.shaping_weight
        )
        is_done = verdict.is_done & ~is_dead
        time = playing.time + 1
        is_finished = is_done & (playing.step + 1 >= plan.num_steps)
        is_stranded = verdict.is_stranded & ~is_dead
        is_over = is_dead | is_finished | is_stranded | (time >= plan.episode_limit)
        step = playing.step + is_done
        after = dataclasses.replace(
            playing,
            obs=obs,
            state=state,
            now=now,
            start=jnp.where(is_done[:, None], now, playing.start),
            step=jnp.where(is_over, 0, step),
            time=time,
            episode=playing.episode + is_over,
        )
        snapshots = record(snapshots, is_done & ~is_over, step, plan.num_steps, obs, state, time)
        after, use = _restart(adapter, after, is_over, pool, use, snapshots, plan, mode, start_key)
        last = jnp.where(is_over[:, None], after.now, playing.now)
        registers = functools.partial(read_registers, adapter, plan, after.step, after.now, last, after.start)
        guard = on_duty(plan.guards, registers, jnp.where(is_over, NONE, playing.guard))
        after = dataclasses.replace(after, guard=guard)
        seen = Trajectory(
            inputs=narrow(inputs, adapter.num_flags),
            expert=expert,
            allowed=allowed,
            action=action,
            log_prob=log_prob,
            value=value,
            reward=verdict.reward,
            step=playing.step,
            guard=playing.guard,
            is_boundary=is_done | is_over,
            is_over=is_over,
            is_done=is_done,
            is_finished=is_finished,
            is_dead=is_dead,
            is_stranded=is_stranded,
            is_snapshot=playing.is_snapshot,
            episode=playing.episode,
            time=time,
        )
        return (after, use, snapshots), seen

    (playing, use, snapshots), trajectory = jax.lax.scan(
        advance, (playing, use, snapshots), jax.random.split(key, length)
    )
    last_inputs, _ = expert_inputs(adapter, plan, playing)
    _, last_value = routed_apply(network.apply, params, last_inputs, _acting(plan, playing))
    num_experts = jax.tree.leaves(params)[0].shape[0]
    return playing, use, snapshots, trajectory, last_value, _count(trajectory, num_experts)


def _allowed(adapter: Adapter, plan: PlanArrays, playing: Playing) -> jax.Array:
    """Return the actions that the acting experts may choose, bool[B, A]."""
    guard = playing.guard
    allowed = jnp.where(guard[:, None] >= 0, jnp.asarray(plan.guards.actions)[guard], plan.actions[playing.step])
    if adapter.deadly is None:
        return allowed
    return allowed & ~(jax.vmap(adapter.deadly)(playing.obs, playing.state) & plan.is_masked)


def _acting(plan: PlanArrays, playing: Playing) -> jax.Array:
    """Return the local expert that acts next in each environment, i32[B]."""
    guard = playing.guard
    return jnp.where(guard >= 0, jnp.asarray(plan.guards.expert)[guard], plan.expert[playing.step])


def _restart(
    adapter: Adapter,
    playing: Playing,
    is_over: jax.Array,
    pool: WorldPool,
    use: PoolUse,
    snapshots: Snapshots,
    plan: PlanArrays,
    mode: RolloutMode,
    key: jax.Array,
) -> tuple[Playing, PoolUse]:
    """Return the environments with every finished episode restarted, in a world or at an entry snapshot."""
    batch = is_over.shape[0]
    is_picked, snapshot, entry = pick(
        snapshots, key, batch, mode.snapshot_fraction, mode.snapshot_weight, plan.num_steps
    )
    is_picked &= is_over
    drawn, use = draw(use, is_over & ~is_picked & ~mode.is_fixed)
    fixed = (jnp.arange(batch) + batch * playing.episode) % pool.obs.shape[0]
    world = jnp.where(mode.is_fixed, fixed, drawn)
    current = (playing.obs, playing.state)
    current = put_rows(current, (pool.obs, pool.state), is_over & ~is_picked, world)
    obs, state = put_rows(current, (snapshots.obs, snapshots.state), is_picked, snapshot)
    now = jax.lax.cond(is_over.any(), lambda: jax.vmap(adapter.read)(obs, state), lambda: playing.now)
    return dataclasses.replace(
        playing,
        obs=obs,
        state=state,
        now=now,
        start=jnp.where(is_over[:, None], now, playing.start),
        step=jnp.where(is_picked, entry, playing.step),
        time=jnp.where(is_over, jnp.where(is_picked, snapshots.time[snapshot], 0), playing.time),
        is_snapshot=jnp.where(is_over, is_picked, playing.is_snapshot),
    ), use


def _count(trajectory: Trajectory, num_experts: int) -> RolloutStats:
    ends = trajectory.is_over & ~trajectory.is_snapshot
    steps = jax.nn.one_hot(trajectory.step, MAX_STEPS, dtype=jnp.int32)
    return RolloutStats(
        attempts=(steps * trajectory.is_boundary[..., None]).sum((0, 1)),
        successes=(steps * trajectory.is_done[..., None]).sum((0, 1)),
        episodes=ends.sum(dtype=jnp.int32),
        finished=(trajectory.is_finished & ends).sum(dtype=jnp.int32),
        routed_frames=jnp.zeros(num_experts, jnp.int32).at[trajectory.expert.reshape(-1)].add(1),
        guarded=(trajectory.guard[..., None] == jnp.arange(MAX_GUARDS)).mean((0, 1)),
        reward=trajectory.reward.mean(),
    )
