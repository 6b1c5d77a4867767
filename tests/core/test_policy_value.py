"""The network of one expert and its first parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.networks.initialisation import initial_params
from flowrl_core.networks.policy_value import ActorCritic

OBSERVATION, WIDTH, ACTIONS = 40, 16, 5


@pytest.fixture(scope="module")
def params():
    return initial_params(np.random.default_rng(0), OBSERVATION, WIDTH, ACTIONS)


@pytest.fixture(scope="module")
def network():
    return ActorCritic(width=WIDTH, num_actions=ACTIONS)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)


def test_initial_parameters_have_the_structure_of_the_modules_own(network, params):
    own = jax.eval_shape(network.init, jax.random.PRNGKey(0), jnp.zeros((1, OBSERVATION)))
    assert shapes(params) == shapes(own)


def test_initial_parameters_are_numpy_and_a_function_of_the_generator(params):
    again = initial_params(np.random.default_rng(0), OBSERVATION, WIDTH, ACTIONS)
    other = initial_params(np.random.default_rng(1), OBSERVATION, WIDTH, ACTIONS)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert not np.array_equal(params["params"]["value"]["kernel"], other["params"]["value"]["kernel"])


@pytest.mark.parametrize(
    ("layer", "gain"),
    [("actor_second", 2**0.5), ("critic_third", 2**0.5), ("logits", 0.01), ("value", 1.0)],
)
def test_kernels_are_orthogonal_with_their_gain(params, layer, gain):
    kernel = params["params"][layer]["kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(kernel.shape[1]), atol=1e-6)


def test_the_fused_first_layer_is_two_orthogonal_kernels(params):
    for half in np.split(params["params"]["first"]["kernel"], 2, axis=1):
        np.testing.assert_allclose(half.T @ half, 2 * np.eye(WIDTH), atol=1e-5)


def test_a_kernel_wider_than_tall_has_orthogonal_rows():
    kernel = initial_params(np.random.default_rng(0), 6, WIDTH, ACTIONS)["params"]["first"]["kernel"][:, :WIDTH]
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(6), atol=1e-5)


def test_biases_are_zero(params):
    assert all(not layer["bias"].any() for layer in params["params"].values())


def test_outputs_are_logits_and_one_value_per_observation(network, params):
    x = np.random.default_rng(1).standard_normal((7, OBSERVATION)).astype(np.float32)
    logits, value = network.apply(params, x)
    assert (logits.shape, logits.dtype) == ((7, ACTIONS), jnp.float32)
    assert (value.shape, value.dtype) == ((7,), jnp.float32)
    np.testing.assert_allclose(jax.nn.softmax(logits), 1 / ACTIONS, atol=0.05)  # the first policy is nearly uniform


def test_actor_and_critic_share_no_parameter(network, params):
    x = np.random.default_rng(1).standard_normal((3, OBSERVATION)).astype(np.float32)

    @jax.jit
    def gradients(params):
        _, pull = jax.vjp(lambda p: network.apply(p, x), params)
        return pull((jnp.ones((3, ACTIONS)), jnp.zeros(3)))[0], pull((jnp.zeros((3, ACTIONS)), jnp.ones(3)))[0]

    of_logits, of_value = (gradient["params"] for gradient in gradients(params))
    for name in of_logits:
        kernels = of_logits[name]["kernel"], of_value[name]["kernel"]
        if name == "first":
            assert not kernels[0][:, WIDTH:].any()
            assert not kernels[1][:, :WIDTH].any()
        else:
            assert sum(bool(kernel.any()) for kernel in kernels) == 1
