"""Routing to one expert per sample is exact for every routing, and costs about one expert."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrl_core.networks import moe
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.networks.moe import (
    block_sizes,
    dense_apply,
    put_expert,
    routed_apply,
    take_expert,
)
from flowrl_core.networks.policy_value import ActorCritic

pytestmark = pytest.mark.long

OBSERVATION, WIDTH, ACTIONS, EXPERTS, SAMPLES = 20, 16, 5, 4, 100
NETWORK = ActorCritic(width=WIDTH, num_actions=ACTIONS)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((SAMPLES, OBSERVATION)).astype(np.float32)

ROUTINGS = {
    "uniform": RNG.integers(0, EXPERTS, SAMPLES),
    "all on one": np.full(SAMPLES, 2),
    "one has none": RNG.choice([0, 1, 3], SAMPLES),
    "one sample apart": np.r_[np.zeros(SAMPLES - 1, int), 3],
    "some unused": RNG.integers(0, EXPERTS + 1, SAMPLES),
    "all unused": np.full(SAMPLES, EXPERTS),
}
OPTIONS = {
    "blocks of 7": {"block": 7},
    "blocks of 40, 16 and 4": {"block": (40, 16, 4)},
    "default blocks": {"form": "blocks"},
    "ragged": {"form": "ragged"},
}


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def expert_params(seed):
    params = initial_params(np.random.default_rng(seed), OBSERVATION, WIDTH, ACTIONS)
    params["params"]["logits"]["kernel"] *= 100  # policies that differ visibly
    return params


PARAMS = stack([expert_params(seed) for seed in range(EXPERTS)])


def loss(mixture, params, x, expert):
    logits, value = outputs = mixture(NETWORK.apply, params, x, expert)
    return jnp.sum(jax.nn.log_softmax(logits)[:, 0] * value) / SAMPLES, outputs


@functools.cache
def gradient_and_outputs(option=None):
    """Of the form that the option names; of the dense reference if None."""
    mixture = functools.partial(routed_apply, **OPTIONS[option]) if option else dense_apply
    return jax.jit(jax.grad(functools.partial(loss, mixture), has_aux=True))


@functools.cache
def routed_outputs():
    return jax.jit(functools.partial(routed_apply, NETWORK.apply))


def assert_close(tree, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tree, other)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("option", OPTIONS)
def test_outputs_and_gradients_equal_those_of_the_dense_reference(option, routing):
    expert = jnp.asarray(ROUTINGS[routing], jnp.int32)
    routed = gradient_and_outputs(option)(PARAMS, X, expert)
    assert_close(routed, gradient_and_outputs()(PARAMS, X, expert))
    for k in set(range(EXPERTS)) - set(ROUTINGS[routing].tolist()):
        assert not any(leaf.any() for leaf in jax.tree.leaves(take_expert(routed[0], k)))


def test_outputs_equal_each_experts_own_network():
    expert = jnp.asarray(ROUTINGS["uniform"], jnp.int32)
    logits, value = routed_outputs()(PARAMS, X, expert)
    everything = jax.vmap(NETWORK.apply, (0, None))(PARAMS, X)
    for k in range(EXPERTS):
        mine = ROUTINGS["uniform"] == k
        assert_close((logits[mine], value[mine]), (everything[0][k, mine], everything[1][k, mine]))


def test_unused_samples_get_zeros():
    logits, value = routed_outputs()(PARAMS, X, jnp.full(SAMPLES, EXPERTS, jnp.int32))
    assert not logits.any()
    assert not value.any()


@pytest.mark.parametrize(("num_samples", "block"), [(1, None), (5, (64, 16, 4))])
def test_a_handful_of_samples_is_routed_too(num_samples, block):
    expert = np.arange(num_samples, dtype=np.int32) % EXPERTS
    run = jax.jit(functools.partial(routed_apply, NETWORK.apply, block=block))
    routed = run(PARAMS, X[:num_samples], expert)
    logits, value = gradient_and_outputs()(PARAMS, X, jnp.arange(SAMPLES, dtype=jnp.int32) % EXPERTS)[1]
    assert_close(routed, (logits[:num_samples], value[:num_samples]))


def test_permuting_local_indices_leaves_every_action_distribution_equal():
    order = np.array([2, 0, 3, 1])  # the new local index of each expert
    expert = ROUTINGS["uniform"]
    permuted = jax.tree.map(lambda leaf: leaf[np.argsort(order)], PARAMS)
    before, _ = routed_outputs()(PARAMS, X, jnp.asarray(expert, jnp.int32))
    after, _ = routed_outputs()(permuted, X, jnp.asarray(order[expert], jnp.int32))
    np.testing.assert_allclose(jax.nn.softmax(before), jax.nn.softmax(after), atol=1e-6)


def test_padding_the_experts_leaves_every_action_distribution_equal():
    expert = jnp.asarray(ROUTINGS["uniform"], jnp.int32)
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.full((12, *leaf.shape[1:]), jnp.nan)]), PARAMS)
    run = gradient_and_outputs("blocks of 40, 16 and 4")
    (_, (before, _)), (gradients, (after, _)) = run(PARAMS, X, expert), run(padded, X, expert)
    np.testing.assert_allclose(jax.nn.softmax(before), jax.nn.softmax(after), atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("option", ["default blocks", "ragged"])
def test_a_sample_that_is_not_a_number_spoils_no_other_expert(option):
    expert = jnp.asarray(np.arange(SAMPLES) % EXPERTS, jnp.int32)
    x = X.copy()
    x[-1] = np.nan  # routed to expert 3
    gradients, _ = gradient_and_outputs(option)(PARAMS, x, expert)
    healthy = jax.tree.map(lambda leaf: leaf[:3], gradients)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(healthy))
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(take_expert(gradients, 3)))


def test_works_inside_a_scan():
    expert = jnp.asarray(ROUTINGS["uniform"], jnp.int32)

    def play(params, x, expert):
        return jax.lax.scan(lambda carry, _: (carry, routed_apply(NETWORK.apply, params, x, expert)), 0, length=3)[1]

    logits, value = jax.jit(play)(PARAMS, X, expert)
    expected = routed_outputs()(PARAMS, X, expert)
    for t in range(3):
        assert_close((logits[t], value[t]), expected)


def test_the_forward_pass_is_not_computed_again_for_the_gradient():
    width, samples, inputs = 64, 1024, 200
    network = ActorCritic(width=width, num_actions=ACTIONS)
    params = stack([initial_params(np.random.default_rng(0), inputs, width, ACTIONS)] * 2)

    def total(params, x, expert):
        logits, value = routed_apply(network.apply, params, x, expert, block=256)
        return (logits**2).sum() + (value**2).sum()

    shapes = params, jnp.zeros((samples, inputs)), jnp.zeros(samples, jnp.int32)
    program = jax.jit(jax.grad(total)).lower(*shapes).compile().as_text()
    # Seven layers forward; backward seven for the parameters and at most six for inputs (none for the observation).
    assert 7 + 7 <= program.count(" dot(") <= 7 + 7 + 6


def memory(mixture, num_experts):
    """Bytes of temporaries and of parameters of a gradient, 1,024 samples."""
    one = initial_params(np.random.default_rng(0), 200, 64, ACTIONS)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_experts, *leaf.shape), leaf.dtype), one)
    x, expert = jax.ShapeDtypeStruct((1024, 200), jnp.float32), jax.ShapeDtypeStruct((1024,), jnp.int32)
    network = ActorCritic(width=64, num_actions=ACTIONS)

    def total(params, x, expert):
        logits, value = mixture(network.apply, params, x, expert)
        return (logits**2).sum() + (value**2).sum()

    analysis = jax.jit(jax.grad(total)).lower(params, x, expert).compile().memory_analysis()
    return analysis.temp_size_in_bytes, sum(leaf.size * 4 for leaf in jax.tree.leaves(params))


@pytest.mark.long
def test_memory_grows_with_the_parameters_and_not_with_experts_times_samples():
    routed = functools.partial(routed_apply, block=(64, 32), form="blocks")
    (few, few_params), (many, many_params) = memory(routed, 2), memory(routed, 32)
    assert many - few <= many_params - few_params
    assert many - few <= (memory(dense_apply, 32)[0] - memory(dense_apply, 2)[0]) / 10


@pytest.mark.parametrize(("backend", "is_ragged"), [("cpu", False), ("gpu", True)])
def test_the_backend_decides_the_form(monkeypatch, backend, is_ragged):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    expert = jnp.asarray(ROUTINGS["uniform"], jnp.int32)
    program = jax.make_jaxpr(functools.partial(routed_apply, NETWORK.apply))(PARAMS, X, expert)
    assert ("ragged_dot" in str(program)) == is_ragged


def test_the_ragged_form_refuses_what_is_no_dense_layer():
    def bias_alone(params, x):
        return x + params["bias"]

    with pytest.raises(ValueError, match="dense layers"):
        routed_apply(
            bias_alone,
            {"bias": jnp.zeros((EXPERTS, 1, OBSERVATION))},
            X[:EXPERTS],
            ROUTINGS["uniform"][:4],
            form="ragged",
        )


def test_taking_and_putting_an_expert_is_exact():
    other = expert_params(9)
    changed = put_expert(PARAMS, jnp.int32(2), other)
    jax.tree.map(np.testing.assert_array_equal, take_expert(changed, 2), other)
    for k in (0, 1, 3):
        jax.tree.map(np.testing.assert_array_equal, take_expert(changed, k), take_expert(PARAMS, k))


@pytest.mark.parametrize("num_samples", [1, 64, 1000, 8192])
@pytest.mark.parametrize("num_experts", [1, 8, 32])
def test_default_blocks_are_few_and_in_descending_order(num_samples, num_experts):
    sizes = block_sizes(num_samples, num_experts)
    assert list(sizes) == sorted(set(sizes), reverse=True)
    assert 8 <= sizes[-1] <= 128
    assert len(sizes) <= 10


@functools.cache
def layout_of(sizes):
    return jax.jit(functools.partial(moe._layout, num_experts=EXPERTS, sizes=sizes))


@pytest.mark.parametrize("sizes", [(7,), (1, 2, 3), (4, 16, 40), (8, 100)], ids=str)
@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, SAMPLES), min_size=EXPERTS, max_size=EXPERTS), seed=st.integers(0, 99))
def test_every_used_sample_has_one_row_in_a_block_of_its_expert(sizes, cuts, seed):
    expert = np.searchsorted(sorted(cuts), np.arange(SAMPLES), side="right")
    np.random.default_rng(seed).shuffle(expert)
    layout = jax.tree.map(np.asarray, layout_of(sizes)(jnp.asarray(expert, jnp.int32)))
    num_rows, used = len(layout.source), expert < EXPERTS
    counts = np.bincount(expert, minlength=EXPERTS)[:EXPERTS]

    owner = np.full(num_rows, -1)
    for size, first, end in zip(sizes, layout.bound[:-1], layout.bound[1:], strict=True):
        for k, start in zip(layout.expert[first:end], layout.start[first:end], strict=True):
            assert (owner[start : start + size] == -1).all(), "blocks overlap"
            assert start + size <= num_rows
            owner[start : start + size] = k
    np.testing.assert_array_equal(owner[layout.place[used]], expert[used])
    np.testing.assert_array_equal(layout.source[layout.place[used]], np.flatnonzero(used))
    assert (layout.source < SAMPLES).sum() == used.sum()
    assert (layout.place[~used] == num_rows).all()
    assert layout.bound[-1] - layout.bound[0] == sum(-(-count // max(sizes)) for count in counts)


def test_sizes_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="largest first"):
        routed_apply(NETWORK.apply, PARAMS, X, jnp.zeros(SAMPLES, jnp.int32), block=(12, 32))
    with pytest.raises(ValueError, match="one expert per sample"):
        routed_apply(NETWORK.apply, PARAMS, X, jnp.zeros(SAMPLES - 1, jnp.int32))
