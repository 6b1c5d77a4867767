"""The adapter's step against the installed game's own: the same states from the same keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic.envs.craftax_symbolic_env import CraftaxClassicSymbolicEnvNoAutoReset

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.craftax_classic.cell_choice import choose_cell

NUM_CELLS = 4096
BATCH, LENGTH = 16, 200
only_on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="equal bits are promised on a CPU only")


def chances(is_open):
    return is_open / jnp.sum(is_open)


@jax.jit
@jax.vmap
def chosen_by_jax(key, is_open):
    return jax.random.choice(key, jnp.arange(NUM_CELLS), shape=(1,), p=chances(is_open))[0]


@jax.jit
@jax.vmap
def chosen(key, is_open):
    return choose_cell(key, jnp.arange(NUM_CELLS), shape=(1,), p=chances(is_open))[0]


def maps(seed, share):
    return jnp.asarray(np.random.default_rng(seed).random((512, NUM_CELLS)) < share)


@only_on_cpu
@pytest.mark.parametrize("share", [0.002, 0.02, 0.1, 0.5, 0.98, 1.0])
def test_the_chosen_cell_is_that_of_jax(share):
    for seed in range(4):
        is_open = maps(seed, share).at[:, seed].set(True)
        keys = jax.random.split(jax.random.PRNGKey(seed), len(is_open))
        np.testing.assert_array_equal(chosen(keys, is_open), chosen_by_jax(keys, is_open))


@only_on_cpu
def test_the_chosen_cell_is_that_of_jax_where_open_cells_lie_together():
    is_open = jnp.arange(NUM_CELLS)[None] // 16 % jnp.arange(2, 258)[:, None] == 0
    keys = jax.random.split(jax.random.PRNGKey(5), len(is_open))
    np.testing.assert_array_equal(chosen(keys, is_open), chosen_by_jax(keys, is_open))


def test_a_single_open_cell_is_chosen():
    cells = jnp.arange(0, NUM_CELLS, 5)
    keys = jax.random.split(jax.random.PRNGKey(0), len(cells))
    np.testing.assert_array_equal(chosen(keys, jax.nn.one_hot(cells, NUM_CELLS, dtype=bool)), cells)


def test_every_open_cell_is_chosen_equally_often():
    is_open = np.zeros(NUM_CELLS, bool)
    is_open[np.random.default_rng(1).choice(NUM_CELLS, 50, replace=False)] = True
    keys = jax.random.split(jax.random.PRNGKey(2), 20_000)
    counts = np.bincount(chosen(keys, jnp.broadcast_to(is_open, (20_000, NUM_CELLS))), minlength=NUM_CELLS)
    assert counts[~is_open].sum() == 0
    expected = 20_000 / 50
    # 99.99 % of chi-squared with 49 degrees of freedom
    assert ((counts[is_open] - expected) ** 2 / expected).sum() < 94


def test_other_choices_are_refused():
    with pytest.raises(NotImplementedError):
        choose_cell(jax.random.PRNGKey(0), jnp.arange(8), shape=(1,), p=jnp.full(8, 1 / 8))


@only_on_cpu
@pytest.mark.long
def test_thousands_of_steps_are_the_games_own_to_the_last_bit():
    game = CraftaxClassicSymbolicEnvNoAutoReset()
    params = game.default_params
    adapter = make_adapter("craftax-classic")
    _, start = jax.jit(lambda keys: jax.lax.map(adapter.reset, keys))(jax.random.split(jax.random.PRNGKey(0), BATCH))

    def of_game(key, state, action):
        obs, state, _, is_dead, _ = game.step_env(key, state, action, params)
        return obs, state, is_dead

    def steps(step):
        def body(state, key):
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (BATCH,), 0, adapter.num_actions)
            obs, state, is_dead = jax.vmap(step)(jax.random.split(step_key, BATCH), state, action)
            spawned = state.cows.mask.sum() + state.zombies.mask.sum() + state.skeletons.mask.sum()
            return state, (obs, is_dead, spawned)

        return jax.jit(lambda state, keys: jax.lax.scan(body, state, keys))

    keys = jax.random.split(jax.random.PRNGKey(1), LENGTH)
    ours, games = steps(adapter.step)(start, keys), steps(of_game)(start, keys)
    assert ours[0].taken.any()  # the game itself does not count blows
    ours = (ours[0].replace(dealt=start.dealt, taken=start.taken), ours[1])
    assert ours[1][2].max() > BATCH  # creatures did appear
    jax.tree.map(np.testing.assert_array_equal, ours, games)


def test_a_step_sums_over_no_map():
    game = CraftaxClassicSymbolicEnvNoAutoReset()
    adapter = make_adapter("craftax-classic")
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    state = jax.eval_shape(adapter.reset, key)[1]

    def map_sums(step):
        return str(jax.make_jaxpr(step)(key, state, jnp.int32(0))).count(f"f32[{NUM_CELLS}] = cumsum")

    assert map_sums(lambda *args: game.step_env(*args, game.default_params)) > 0
    assert map_sums(adapter.step) == 0
