"""The mixture of experts as grouped matrix products: the form for accelerators, where each is one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

__all__ = ["ragged_apply"]


def ragged_apply(apply: Callable[..., Any], params: Any, x: jax.Array, expert: jax.Array) -> Any:
    """Return `routed_apply`'s outputs by `jax.lax.ragged_dot`.

    The samples are sorted by expert once, and each dense layer is one product of the sorted rows with all experts'
    kernels.

    On a CPU XLA multiplies the other experts' kernels by zeros, so a NaN in any parameter there spoils all outputs.
    """
    num_experts = jax.tree.leaves(params)[0].shape[0]
    # An unused sample becomes a row of zeros of the last expert: a ragged product need not define rows of no group.
    is_used = expert < num_experts
    group = jnp.minimum(expert, num_experts - 1)
    order = jnp.argsort(group)
    group, num_rows = group[order], (group[:, None] == jnp.arange(num_experts)).sum(0, dtype=jnp.int32)
    rows = jnp.where(_like(is_used, x), x, 0)[order]

    def layer(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        dense = context.module
        if not isinstance(dense, nn.Dense) or context.method_name != "__call__":
            return call(*args, **kwargs)
        (inputs,) = args
        result = jax.lax.ragged_dot(inputs, dense.get_variable("params", "kernel"), num_rows)
        return result + dense.get_variable("params", "bias")[group] if dense.use_bias else result

    with nn.intercept_methods(layer):
        outputs = apply(params, rows)
    expected = jax.eval_shape(apply, jax.tree.map(lambda leaf: leaf[0], params), x)
    if jax.tree.map(jnp.shape, outputs) != jax.tree.map(jnp.shape, expected):
        raise ValueError("the ragged form serves networks of dense layers (flax.linen.Dense) alone")
    place = jnp.argsort(order)

    def restore(leaf: jax.Array) -> jax.Array:
        return jnp.where(_like(is_used, leaf), leaf.at[place].get(unique_indices=True), 0)

    return jax.tree.map(restore, outputs)


def _like(flag: jax.Array, other: jax.Array) -> jax.Array:
    """Return the flag, bool[B], with as many axes as `other`."""
    return flag.reshape(-1, *[1] * (other.ndim - 1))
