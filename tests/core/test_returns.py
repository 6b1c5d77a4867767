"""Advantages against a plain loop, and what a boundary means for credit."""

import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.learning.returns import advantages


def by_loop(r, v, v_last, boundary, over, discount, lam, is_bootstrap):
    values = np.append(v, v_last)
    result, running = np.zeros(len(r)), 0.0
    for t in reversed(range(len(r))):
        ends = over[t] if is_bootstrap else boundary[t]
        delta = r[t] + discount * values[t + 1] * (1 - ends) - v[t]
        running = delta + discount * lam * (1 - boundary[t]) * running
        result[t] = running
    return result


@pytest.mark.parametrize("is_bootstrap", [True, False])
def test_advantages_equal_the_definition(is_bootstrap):
    rng = np.random.default_rng(0)
    r, v = rng.normal(size=(2, 12, 3)).astype(np.float32)
    v_last = rng.normal(size=3).astype(np.float32)
    boundary = rng.random((12, 3)) < 0.3
    over = boundary & (rng.random((12, 3)) < 0.5)
    got = advantages(
        jnp.asarray(r), jnp.asarray(v), jnp.asarray(v_last), jnp.asarray(boundary), jnp.asarray(over),
        discount=0.9, gae_lambda=0.8, is_bootstrap=jnp.bool_(is_bootstrap),
    )  # fmt: skip
    for b in range(3):
        want = by_loop(r[:, b], v[:, b], v_last[b], boundary[:, b], over[:, b], 0.9, 0.8, is_bootstrap)
        np.testing.assert_allclose(got[:, b], want, rtol=1e-5, atol=1e-5)


def credit_before_a_boundary(value_behind, is_bootstrap, is_over):
    flags = {"is_boundary_t": jnp.array([[True], [False]]), "is_over_t": jnp.array([[is_over], [False]])}
    v_t = jnp.array([[0.0], [value_behind]])
    return float(
        advantages(
            jnp.zeros((2, 1)), v_t, jnp.zeros(1), **flags, discount=0.5, gae_lambda=0.9, is_bootstrap=is_bootstrap
        )[0, 0]
    )


def test_the_next_experts_value_counts_only_with_bootstrap_and_never_behind_the_episodes_end():
    assert credit_before_a_boundary(4.0, True, is_over=False) == 2.0
    assert credit_before_a_boundary(4.0, False, is_over=False) == 0.0
    assert credit_before_a_boundary(4.0, True, is_over=True) == 0.0
