"""The PPO update of a mixture: what one expert lived through changes that expert alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from corridor_runs import TRAINING

from flowrl_core.envs.adapter import make_adapter, plain_states
from flowrl_core.learning.learner import hyperparameters
from flowrl_core.learning.losses import ppo_loss
from flowrl_core.learning.ppo import initial_optimizer_state, normalise_by_expert, shuffled_by_expert
from flowrl_core.learning.returns import advantages
from flowrl_core.learning.rollout import Inputs, Trajectory, widen
from flowrl_core.networks.moe import take_expert
from flowrl_core.randomness import jax_stream

ADAPTER = plain_states(make_adapter("corridor"))
T, B, A = TRAINING.rollout_length, TRAINING.num_envs, 18
HYPER = hyperparameters(TRAINING)


def made_up(adapter, expert, reward, boundary=None, value=None):
    """A trajectory of random inputs and actions; `expert` and `reward` are [T, B]."""
    rng = np.random.default_rng(0)
    boundary = np.zeros((T, B), bool) if boundary is None else boundary
    zeros = np.zeros((T, B), np.int32)
    return jax.tree.map(
        jnp.asarray,
        Trajectory(
            inputs=Inputs(
                flags=rng.integers(0, 2, (T, B, adapter.num_flags)).astype(bool),
                numbers=rng.normal(size=(T, B, adapter.observation_size + 9 - adapter.num_flags)).astype(np.float32),
            ),
            expert=np.asarray(expert, np.int32),
            allowed=np.ones((T, B, A), bool),
            action=rng.integers(0, A, (T, B)).astype(np.int32),
            log_prob=np.full((T, B), -np.log(A), np.float32),
            value=np.zeros((T, B), np.float32) if value is None else np.asarray(value, np.float32),
            reward=np.asarray(reward, np.float32),
            step=zeros,
            guard=zeros - 1,
            is_boundary=boundary,
            is_over=np.zeros((T, B), bool),
            is_done=boundary,
            is_finished=np.zeros((T, B), bool),
            is_dead=np.zeros((T, B), bool),
            is_stranded=np.zeros((T, B), bool),
            is_snapshot=np.zeros((T, B), bool),
            episode=zeros,
            time=zeros,
        ),
    )


@pytest.fixture
def updated(learner, improve, fresh_params):
    """(parameters, optimizer state) [16, ...] after one update."""

    def run(*args, hyper=HYPER, **kwargs):
        trajectory = made_up(ADAPTER, *args, **kwargs)
        params = jax.tree.map(jnp.asarray, fresh_params)
        state = initial_optimizer_state(params, hyper)
        params, state, parts = improve(params, state, trajectory, jnp.zeros(B), hyper, jax_stream(0))
        assert all(np.isfinite(parts))
        return jax.tree.map(np.asarray, (params, state))

    return run


def of_expert(tree, k):
    return [np.asarray(leaf)[k].tobytes() for leaf in jax.tree.leaves(tree)]


COLUMNS = np.broadcast_to(np.arange(B) % 2, (T, B))  # expert 0 in even environments, expert 1 in odd ones
REWARD = np.random.default_rng(1).normal(size=(T, B))


def test_experts_that_did_not_act_stay_bit_equal_with_their_optimizer(updated, fresh_params):
    params, state = updated(np.full((T, B), 5), REWARD)
    before = initial_optimizer_state(fresh_params, HYPER)
    for k in range(16):
        assert (of_expert(params, k) == of_expert(fresh_params, k)) == (k != 5)
        assert (of_expert(state, k) == of_expert(before, k)) == (k != 5)


def test_an_expert_is_updated_the_same_whatever_another_one_earned(updated):
    """Normalisation, gradient clipping and Adam are each expert's own."""
    params, state = updated(COLUMNS, REWARD)
    louder, louder_state = updated(COLUMNS, np.where(COLUMNS == 1, 1000 * REWARD + 7, REWARD))
    assert of_expert(params, 0) == of_expert(louder, 0) and of_expert(state, 0) == of_expert(louder_state, 0)
    assert of_expert(params, 1) != of_expert(louder, 1)


def reference_update(network, params, trajectory, key, k):
    """Expert k after an update on its own samples alone: optax, no padding, no stack; and its optimizer state."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trajectory)
    ends = (trajectory.is_boundary, trajectory.is_over)
    gae = {"discount": HYPER.discount, "gae_lambda": HYPER.gae_lambda, "is_bootstrap": HYPER.is_bootstrap}
    gained = advantages(trajectory.reward, trajectory.value, jnp.zeros(B), *ends, **gae).reshape(-1)
    mine = np.flatnonzero(flat.expert == k)
    normalised = np.zeros(T * B, np.float32)
    normalised[mine] = (gained[mine] - gained[mine].mean()) / (gained[mine].std() + 1e-8)

    def optimizer(scale):
        return optax.chain(
            optax.clip_by_global_norm(HYPER.max_grad_norm), optax.adam(HYPER.learning_rate * scale, eps=1e-5)
        )

    @jax.jit
    def gradient(params, inputs, *rest):
        def loss(params):
            logits, value = network.apply(params, inputs)
            weights = {"clip": HYPER.clip, "entropy_weight": HYPER.entropy_weight, "value_weight": HYPER.value_weight}
            return ppo_loss(jax.nn.log_softmax(logits), value, *rest, jnp.ones(len(inputs)), **weights)[0]

        return jax.grad(loss)(params)

    params = take_expert(params, k)
    state = optimizer(1.0).init(params)
    for order in np.asarray(shuffled_by_expert(flat.expert, key, TRAINING.epochs)):
        order = order[np.isin(order, mine)]
        for begin in range(0, len(mine), TRAINING.minibatch_size):
            rows = order[begin : begin + TRAINING.minibatch_size]
            scale = min(1.0, 2.0 * len(rows) / TRAINING.minibatch_size)  # fewer samples, a shorter step
            old = (flat.action, flat.log_prob, flat.value, normalised, gained + flat.value)
            step = gradient(params, widen(flat.inputs)[rows], *(np.asarray(leaf)[rows] for leaf in old))
            updates, state = optimizer(scale).update(step, state, params)
            params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.long
def test_experts_updated_together_come_out_as_each_does_alone_on_its_own_samples(
    updated, learner, network, fresh_params
):
    share = np.random.default_rng(3).choice([0, 3, 15], p=[0.6, 0.25, 0.15], size=(T, B))
    assert [(share == k).sum() for k in (0, 3, 15)] == [151, 71, 34], "the last minibatches are not full"
    together = updated(share, REWARD)
    trajectory = made_up(ADAPTER, share, REWARD)
    for k in (0, 3, 15):
        alone = reference_update(network, fresh_params, trajectory, jax_stream(0), k)
        for got, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(got[k], expected, rtol=1e-4, atol=1e-6)


def test_each_epoch_has_every_sample_once_in_the_order_of_experts_and_shuffled_anew():
    expert = np.random.default_rng(0).integers(0, 5, 300)
    orders = np.asarray(shuffled_by_expert(jnp.asarray(expert), jax.random.PRNGKey(0), 3))
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(300))
        assert (np.diff(expert[order]) >= 0).all()
    first = [order[: (expert == 0).sum()].tolist() for order in orders]
    assert first[0] != sorted(first[0]) and first[0] != first[1] != first[2]


def test_each_experts_optimizer_counts_its_own_gradient_steps(updated):
    quarter = np.broadcast_to(np.where(np.arange(B) < B // 4, 3, 0), (T, B))
    _, state = updated(quarter, REWARD)
    counts = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (16,) and leaf.dtype == np.int32]
    assert counts
    for count in counts:  # 192 and 64 samples in minibatches of 64, four epochs
        assert count.tolist() == [12, 0, 0, 4] + [0] * 12


def test_advantages_have_mean_0_and_deviation_1_within_each_expert():
    advantage = jnp.array([1.0, 3.0, 100.0, 300.0, 500.0, 7.0])
    expert = jnp.array([0, 0, 2, 2, 2, 1])
    got = np.asarray(normalise_by_expert(advantage, expert, 4))
    np.testing.assert_allclose(got[:2], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(got[2:5], [-1.2247449, 0, 1.2247449], atol=1e-6)
    assert got[5] == 0.0, "a single sample is its own mean"


def crossing(updated, credit, promise):
    """Parameters after half a rollout of expert 0 that ends at a boundary to expert 1, whose value is `promise`."""
    hyper = hyperparameters(TRAINING.model_copy(update={"credit": credit, "value_weight": 5.0, "clip": 10.0}))
    halves = np.broadcast_to((np.arange(T) >= T // 2)[:, None], (T, B)).astype(int)
    boundary = np.broadcast_to((np.arange(T) == T // 2 - 1)[:, None], (T, B))
    params, _ = updated(halves, np.zeros((T, B)), boundary=boundary, value=halves * promise, hyper=hyper)
    return params


def test_with_terminal_credit_the_next_experts_value_changes_nothing(updated):
    assert of_expert(crossing(updated, "terminal", 10.0), 0) == of_expert(crossing(updated, "terminal", 99.0), 0)


def test_with_bootstrap_credit_an_expert_learns_what_the_next_one_promises(updated):
    low, high = (crossing(updated, "bootstrap", promise)["params"]["value"]["bias"][0, 0] for promise in (-10.0, 10.0))
    assert high > low + 0.01
