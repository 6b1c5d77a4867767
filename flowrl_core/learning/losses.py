"""PPO's clipped losses (Schulman et al. 2017, eq. 7 and 9; value clipping as in the reference implementation)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["LossParts", "ppo_loss"]


class LossParts(NamedTuple):
    """Weighted means over the samples: policy loss, value loss and entropy, f32[] each."""

    policy: jax.Array
    value: jax.Array
    entropy: jax.Array


def ppo_loss(
    log_probs: jax.Array,
    value: jax.Array,
    action: jax.Array,
    old_log_prob: jax.Array,
    old_value: jax.Array,
    advantage: jax.Array,
    return_: jax.Array,
    weight: jax.Array,
    *,
    clip: jax.Array,
    entropy_weight: jax.Array,
    value_weight: jax.Array,
) -> tuple[jax.Array, LossParts]:
    """Return the loss to minimise, f32[], and its parts.

    Args:
        log_probs: f32[M, A] of the current policy; value: f32[M].
        action: i32[M]; old_log_prob, old_value: f32[M] from the rollout.
        advantage: f32[M], normalised; return_: f32[M], the value's target.
        weight: f32[M] 1 for samples that count, 0 for padding.
    """
    total = jnp.maximum(weight.sum(), 1.0)

    def mean(x: jax.Array) -> jax.Array:
        return (x * weight).sum() / total

    ratio = jnp.exp(jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0] - old_log_prob)
    policy = -mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage))
    clipped = old_value + jnp.clip(value - old_value, -clip, clip)
    value_loss = 0.5 * mean(jnp.maximum((value - return_) ** 2, (clipped - return_) ** 2))
    entropy = mean(-(jnp.exp(log_probs) * log_probs).sum(-1))
    return policy + value_weight * value_loss - entropy_weight * entropy, LossParts(policy, value_loss, entropy)
