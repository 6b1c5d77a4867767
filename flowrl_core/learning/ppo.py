"""One PPO update of a mixture of experts: every gradient step belongs to one expert.

Samples are grouped by the expert that acted, so a gradient step costs as much as one network, whatever the number of
experts. Each expert has its own Adam state and its own advantage normalisation, so that a frequent expert does not
drown a rare one. Nothing is shared, so experts are updated one after another, each through all its epochs: its
parameters and moments are taken out of the stack once and put back once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from flowrl_core.learning.losses import LossParts, ppo_loss
from flowrl_core.learning.returns import advantages
from flowrl_core.learning.rollout import FORBIDDEN, Inputs, Trajectory, widen
from flowrl_core.networks.moe import put_expert, take_expert

if TYPE_CHECKING:
    from flowrl_core.networks.policy_value import ActorCritic

__all__ = ["Hyperparameters", "initial_optimizer_state", "normalise_by_expert", "shuffled_by_expert", "update"]

_ADAM_EPSILON = 1e-5


class Hyperparameters(NamedTuple):
    """The hyperparameters of an update, as data: a change compiles nothing. All f32[] but `is_bootstrap`, bool[]."""

    learning_rate: Any
    discount: Any
    gae_lambda: Any
    clip: Any
    entropy_weight: Any
    value_weight: Any
    max_grad_norm: Any
    is_bootstrap: Any


class _Samples(NamedTuple):
    inputs: Inputs
    allowed: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    return_: jax.Array


class _Expert(NamedTuple):
    """Parameters and optimizer state (of one expert or stacked), and the loss parts summed over all steps so far."""

    params: Any
    optimizer_state: Any
    total: LossParts


def _optimizer(hyper: Hyperparameters, scale: jax.Array | float = 1.0) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(hyper.max_grad_norm),
        optax.adam(hyper.learning_rate * scale, eps=_ADAM_EPSILON),
    )


def initial_optimizer_state(params: Any, hyper: Hyperparameters) -> Any:
    """Return Optax's state for each of the K experts, leaves [K, ...]."""
    return jax.vmap(_optimizer(hyper).init)(params)


def normalise_by_expert(advantage: jax.Array, expert: jax.Array, num_experts: int) -> jax.Array:
    """Return the advantages f32[B] scaled to mean 0 and deviation 1 within each expert's samples."""
    is_mine = expert[:, None] == jnp.arange(num_experts)  # masked sums: on a CPU a scatter is a slow loop
    count = jnp.maximum(is_mine.sum(0), 1)
    mean = jnp.where(is_mine, advantage[:, None], 0.0).sum(0) / count
    centred = advantage - mean[expert]
    deviation = jnp.sqrt(jnp.where(is_mine, centred[:, None] ** 2, 0.0).sum(0) / count)
    return centred / (deviation[expert] + 1e-8)


def shuffled_by_expert(expert: jax.Array, key: jax.Array, epochs: int) -> jax.Array:
    """Return for each epoch the samples sorted by expert, in random order within each expert: i32[epochs, N]."""
    chance = jax.random.bits(key, (epochs, expert.shape[0]))
    order = (expert.astype(jnp.uint32) << 24) | (chance >> 8)  # a tie between two 24-bit random numbers does no harm
    sample = jnp.broadcast_to(jnp.arange(expert.shape[0], dtype=jnp.int32), order.shape)
    return jax.lax.sort((order, sample), num_keys=1, dimension=1)[1]


def update(
    network: ActorCritic,
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
    """Return parameters and optimizer state after `epochs` passes over a rollout, and the mean loss parts.

    Args:
        params, optimizer_state: leaves [K, ...].
        trajectory: leaves [T, B, ...]; last_value: f32[B].
    """
    num_experts = jax.tree.leaves(params)[0].shape[0]
    samples, expert = _samples(trajectory, last_value, hyper, num_experts)
    size = min(minibatch_size, expert.shape[0])
    count = (expert[:, None] == jnp.arange(num_experts)).sum(0)
    first = jnp.cumsum(count) - count
    num_blocks = -(-count // size)
    orders = shuffled_by_expert(expert, key, epochs)

    def improve(k: jax.Array, mine: _Expert) -> _Expert:
        """Return expert k after its epochs; the last minibatch of each epoch may be padded."""

        def gradient_step(j: jax.Array, mine: _Expert) -> _Expert:
            epoch, block = j // num_blocks[k], j % num_blocks[k]
            rows, weight = _rows(orders, epoch, first[k] + block * size, count[k] - block * size, size)
            batch = jax.tree.map(lambda leaf: leaf[rows], samples)
            gradient, parts = jax.grad(lambda p: _loss(network, p, batch, weight, hyper), has_aux=True)(mine.params)
            # A minibatch that is mostly padding carries less information, so its step is shorter.
            scale = jnp.minimum(1.0, 2.0 * weight.mean())
            updates, state = _optimizer(hyper, scale).update(gradient, mine.optimizer_state, mine.params)
            total = jax.tree.map(jnp.add, mine.total, parts)
            return _Expert(optax.apply_updates(mine.params, updates), state, total)

        return jax.lax.fori_loop(0, epochs * num_blocks[k], gradient_step, mine)

    def improve_next(i: jax.Array, all_: _Expert) -> _Expert:
        k = acted[i]
        params, optimizer_state = take_expert((all_.params, all_.optimizer_state), k)
        mine = improve(k, _Expert(params, optimizer_state, all_.total))
        params, optimizer_state = put_expert(
            (all_.params, all_.optimizer_state), k, (mine.params, mine.optimizer_state)
        )
        return _Expert(params, optimizer_state, mine.total)

    acted = jnp.argsort(count == 0, stable=True)
    nothing = LossParts(jnp.float32(0), jnp.float32(0), jnp.float32(0))
    after = jax.lax.fori_loop(0, (count > 0).sum(), improve_next, _Expert(params, optimizer_state, nothing))
    num_steps = epochs * num_blocks.sum()
    return after.params, after.optimizer_state, jax.tree.map(lambda x: x / num_steps, after.total)


def _rows(
    orders: jax.Array, epoch: jax.Array, begin: jax.Array, length: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """Return `size` samples that include orders[epoch, begin : begin + length], i32[size], and weights f32[size].

    The samples of that range have weight 1, the neighbours that fill up the rest 0.
    """
    start = jnp.minimum(begin, orders.shape[1] - size)
    place = start + jnp.arange(size)
    weight = (place >= begin) & (place < begin + length)
    return jax.lax.dynamic_slice(orders, (epoch, start), (1, size))[0], weight.astype(jnp.float32)


def _samples(
    trajectory: Trajectory, last_value: jax.Array, hyper: Hyperparameters, num_experts: int
) -> tuple[_Samples, jax.Array]:
    advantage = advantages(
        trajectory.reward,
        trajectory.value,
        last_value,
        trajectory.is_boundary,
        trajectory.is_over,
        discount=hyper.discount,
        gae_lambda=hyper.gae_lambda,
        is_bootstrap=hyper.is_bootstrap,
    )

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape((-1, *x.shape[2:]))

    expert = flat(trajectory.expert)
    samples = _Samples(
        inputs=jax.tree.map(flat, trajectory.inputs),
        allowed=flat(trajectory.allowed),
        action=flat(trajectory.action),
        log_prob=flat(trajectory.log_prob),
        value=flat(trajectory.value),
        advantage=normalise_by_expert(flat(advantage), expert, num_experts),
        return_=flat(advantage + trajectory.value),
    )
    return samples, expert


def _loss(
    network: ActorCritic, params: Any, batch: _Samples, weight: jax.Array, hyper: Hyperparameters
) -> tuple[jax.Array, LossParts]:
    logits, value = cast(tuple[jax.Array, jax.Array], network.apply(params, widen(batch.inputs)))
    log_probs = jax.nn.log_softmax(jnp.where(batch.allowed, logits, FORBIDDEN))
    return ppo_loss(
        log_probs,
        value,
        batch.action,
        batch.log_prob,
        batch.value,
        batch.advantage,
        batch.return_,
        weight,
        clip=hyper.clip,
        entropy_weight=hyper.entropy_weight,
        value_weight=hyper.value_weight,
    )
