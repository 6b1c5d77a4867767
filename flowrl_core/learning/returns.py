"""Advantages along a rollout that crosses skill boundaries."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["advantages"]


def advantages(
    r_t: jax.Array,
    v_t: jax.Array,
    v_last: jax.Array,
    is_boundary_t: jax.Array,
    is_over_t: jax.Array,
    *,
    discount: jax.Array,
    gae_lambda: jax.Array,
    is_bootstrap: jax.Array,
) -> jax.Array:
    """Return generalised advantage estimates f32[T, B] (Schulman et al. 2016, eq. 16), cut at skill boundaries.

    The lambda trace ends where a plan step ends, since the rewards after it belong to another expert. With
    `is_bootstrap` the value of the next step's expert still counts in the one-step error (its success depends on the
    state it receives); without it, a boundary is terminal. The end of an episode is always terminal.

    Args:
        r_t, v_t: f32[T, B] reward of the step and value before it.
        v_last: f32[B] value after the last step.
        is_boundary_t, is_over_t: bool[T, B].
    """

    def back(
        carry: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        advantage, v_next = carry
        r, v, is_boundary, is_over = xs
        has_next = 1.0 - jnp.where(is_bootstrap, is_over, is_boundary)
        delta = r + discount * has_next * v_next - v
        advantage = delta + discount * gae_lambda * (1.0 - is_boundary) * advantage
        return (advantage, v), advantage

    ends = (is_boundary_t.astype(jnp.float32), is_over_t.astype(jnp.float32))
    _, result = jax.lax.scan(back, (jnp.zeros_like(v_last), v_last), (r_t, v_t, *ends), reverse=True)
    return result
