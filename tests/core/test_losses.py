"""PPO's losses at points where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.learning.losses import ppo_loss

WEIGHTS = {"clip": 0.2, "entropy_weight": 0.0, "value_weight": 0.0}


def loss_at(ratio, advantage, **changes):
    """The loss of one sample whose action has probability 1/2 now and 1/(2 ratio) before."""
    arguments = {
        "log_probs": jnp.log(jnp.array([[0.5, 0.5]])),
        "value": jnp.zeros(1),
        "action": jnp.zeros(1, jnp.int32),
        "old_log_prob": jnp.log(jnp.array([0.5 / ratio])),
        "old_value": jnp.zeros(1),
        "advantage": jnp.array([advantage]),
        "return_": jnp.zeros(1),
        "weight": jnp.ones(1),
        **WEIGHTS,
        **changes,
    }
    return ppo_loss(**arguments)


@pytest.mark.parametrize(
    ("ratio", "advantage", "want"),
    [(1.0, 3.0, -3.0), (2.0, 1.0, -1.2), (0.5, 1.0, -0.5), (2.0, -1.0, 2.0), (0.5, -1.0, 0.8)],
)
def test_the_policy_loss_is_clipped_only_where_it_would_gain(ratio, advantage, want):
    assert float(loss_at(ratio, advantage)[0]) == pytest.approx(want, rel=1e-5)


def test_the_value_loss_takes_the_worse_of_the_clipped_and_the_plain_error():
    _, parts = loss_at(1.0, 0.0, value=jnp.array([1.0]), return_=jnp.array([1.0]))
    assert float(parts.value) == pytest.approx(0.5 * 0.8**2, rel=1e-5)


def test_entropy_of_a_uniform_policy_is_log_of_the_number_of_actions():
    assert float(loss_at(1.0, 0.0)[1].entropy) == pytest.approx(np.log(2), rel=1e-5)


def test_padding_changes_neither_loss_nor_gradient():
    def loss(logits, weight):
        n = logits.shape[0]
        return ppo_loss(
            jax.nn.log_softmax(logits), jnp.zeros(n), jnp.zeros(n, jnp.int32), jnp.zeros(n), jnp.zeros(n),
            jnp.arange(1.0, n + 1), jnp.ones(n), weight, clip=0.2, entropy_weight=0.1, value_weight=0.5,
        )[0]  # fmt: skip

    logits = jnp.array([[0.3, -0.2], [0.1, 0.4], [9.0, -9.0]])
    gradient = jax.grad(loss)(logits, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(gradient[:2], jax.grad(loss)(logits[:2], jnp.ones(2)), rtol=1e-6)
    np.testing.assert_array_equal(gradient[2], 0.0)
