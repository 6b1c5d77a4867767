"""The pool of worlds: how often each starts an episode, and that starts follow the game's own distribution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.envs import corridor
from flowrl_core.envs.vocabularies import CORRIDOR_LENGTH
from flowrl_core.envs.worlds import draw, empty_pool, replace_used, staggered, used_up

ADAPTER = corridor.make()
POOL, BATCH, MAX_USES = 12, 5, 3

replace = jax.jit(functools.partial(replace_used, ADAPTER))
drawn = jax.jit(draw)


def full_pool(seed):
    return replace(empty_pool(ADAPTER, POOL), used_up(POOL), jax.random.PRNGKey(seed), 1)


def play(rounds, max_uses=MAX_USES, seed=0):
    """Starts as (world's birth number, observation), one list per round of random resets."""
    rng = np.random.default_rng(seed)
    pool, use = full_pool(seed)
    use = dataclasses.replace(staggered(POOL, max_uses), born=use.born)
    births = np.arange(POOL)
    starts = []
    for _ in range(rounds):
        stale = np.asarray(use.uses) >= max_uses
        born = int(use.born)
        pool, use = replace(pool, use, jax.random.PRNGKey(seed), max_uses)
        births[stale] = born + np.arange(stale.sum())
        assert int(use.born) == born + stale.sum()
        is_reset = rng.random(BATCH) < 0.7
        index, use = drawn(use, jnp.asarray(is_reset))
        starts += [(births[i], np.asarray(pool.obs)[i]) for i in np.asarray(index)[is_reset]]
    return starts


def test_no_world_starts_more_than_its_uses():
    counts = np.bincount([birth for birth, _ in play(400)])
    assert counts.max() == MAX_USES
    assert np.mean(counts[POOL:-POOL] == MAX_USES) == 1.0


def test_with_one_use_every_start_is_a_new_world():
    births = [birth for birth, _ in play(200, max_uses=1)]
    assert len(set(births)) == len(births)


@pytest.mark.parametrize("max_uses", [1, 8])
def test_starts_follow_the_games_distribution(max_uses):
    cells = np.array([np.argmax(obs[:CORRIDOR_LENGTH]) for _, obs in play(1_500, max_uses=max_uses, seed=3)])
    share = np.bincount(cells, minlength=CORRIDOR_LENGTH) / len(cells)
    # A pool's starts are correlated in groups of max_uses: that many times fewer of them are independent.
    deviation = np.sqrt(1 / CORRIDOR_LENGTH * (1 - 1 / CORRIDOR_LENGTH) / (len(cells) / max_uses))
    assert np.abs(share - 1 / CORRIDOR_LENGTH).max() < 4 * deviation


def test_the_same_seed_gives_the_same_worlds_however_they_are_split_over_calls():
    def first_worlds(sizes):
        pool, use = empty_pool(ADAPTER, POOL), used_up(POOL)
        seen = []
        for size in sizes:
            use = dataclasses.replace(
                use, uses=np.where(np.arange(POOL) < size, 99, 0).astype(np.int32), born=np.int32(len(seen))
            )
            pool, _ = replace(pool, use, jax.random.PRNGKey(7), 99)
            seen += list(np.asarray(pool.obs)[:size])
        return np.array(seen)

    np.testing.assert_array_equal(first_worlds([12]), first_worlds([5, 3, 4]))


def test_replacements_spread_over_time():
    pool, use = full_pool(0)[0], staggered(POOL, MAX_USES)
    replaced = []
    for _ in range(60):
        _, use = drawn(use, jnp.ones(BATCH, bool))
        born = int(use.born)
        pool, use = replace(pool, use, jax.random.PRNGKey(0), MAX_USES)
        replaced.append(int(use.born) - born)
    assert max(replaced) <= -(-BATCH // MAX_USES) + 1
