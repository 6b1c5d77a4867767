"""The pool of worlds: how often each starts an episode, and that starts follow the game's own distribution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corridor_runs import KNOWLEDGE
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.automaton import NUM_STEP_FEATURES, lower_plan
from flowrl_core.envs.corridor.vocabulary import CORRIDOR, CORRIDOR_LENGTH
from flowrl_core.envs.snapshots import no_snapshots
from flowrl_core.envs.worlds import draw, empty_pool, replace_used, staggered, used_up
from flowrl_core.learning.learner import training_mode
from flowrl_core.learning.rollout import begin, rollout
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.networks.policy_value import ActorCritic
from flowrl_core.skills.experts import stack_experts
from flowrl_core.skills.model import Plan, Step

ADAPTER = make_adapter("corridor")
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


class CountedPool:
    """A pool, and how many episodes each world that was ever in it has started, by the world's birth number."""

    def __init__(self, size, max_uses):
        self.size, self.max_uses = size, max_uses
        self.pool, use = replace(empty_pool(ADAPTER, size), used_up(size), jax.random.PRNGKey(0), 1)
        self.use = dataclasses.replace(staggered(size, max_uses), born=use.born)
        self.births = np.arange(size)
        self.starts = np.zeros(size, int)

    def replace(self):
        stale, born = np.asarray(self.use.uses) >= self.max_uses, int(self.use.born)
        self.births[stale] = born + np.arange(stale.sum())
        self.pool, self.use = replace(self.pool, self.use, jax.random.PRNGKey(0), self.max_uses)
        self.starts = np.append(self.starts, np.zeros(stale.sum(), int))

    def count(self, use):
        """The episodes that a rollout with these counters at its end has started."""
        self.starts[self.births] += np.asarray(use.uses) - np.asarray(self.use.uses)
        self.use = use


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.lists(st.integers(0, 2**BATCH - 1), max_size=6), max_size=25),
)
def test_whatever_the_resets_no_world_starts_more_than_its_uses_and_those_of_the_last_rollout(max_uses, rollouts):
    counted = CountedPool(POOL, max_uses)
    bound = max_uses
    for steps in rollouts:
        counted.replace()
        use, resets = counted.use, 0
        for step in steps:
            is_reset = np.array([step >> b & 1 for b in range(BATCH)], bool)
            index, use = drawn(use, jnp.asarray(is_reset))
            assert len(set(np.asarray(index)[is_reset])) == is_reset.sum(), "worlds drawn at once differ"
            resets += is_reset.sum()
        counted.count(use)
        # While a rollout resets at most P times, that is max_uses.
        bound = max(bound, max_uses - 1 + -(-resets // POOL))
        assert counted.starts.max() <= bound
    assert (counted.starts >= 0).all()


@pytest.mark.long
@pytest.mark.parametrize("limit", [1, 3])
def test_in_rollouts_that_reset_all_the_time_no_world_starts_more_than_its_uses(limit):
    num_envs, length, number = 4, 8, 40
    counted = CountedPool(num_envs * length, MAX_USES)
    network = ActorCritic(width=8, num_actions=ADAPTER.num_actions)
    plan = lower_plan(
        Plan("make_b", (Step("dig_a", 1), Step("goto_bench", 1), Step("make_b", 1))),
        KNOWLEDGE.skills,
        {"dig_a": 0, "goto_bench": 1, "make_b": 2},
        CORRIDOR,
        episode_limit=limit,
    )
    mode = training_mode()
    counted.replace()
    playing, use = begin(ADAPTER, counted.pool, counted.use, mode, batch=num_envs)
    counted.count(use)
    snapshots = no_snapshots(counted.pool, 4)
    rng, num_inputs = np.random.default_rng(0), ADAPTER.observation_size + NUM_STEP_FEATURES
    params = stack_experts([initial_params(rng, num_inputs, 8, ADAPTER.num_actions)] * 3, 3)
    play = jax.jit(functools.partial(rollout, ADAPTER, network, length=length))
    ends = 0
    for key in jax.random.split(jax.random.PRNGKey(0), number):
        counted.replace()
        playing, use, snapshots, trajectory, *_ = play(
            params, playing, counted.pool, counted.use, snapshots, plan, mode, key
        )
        counted.count(use)
        ends += int(trajectory.is_over.sum())
        assert counted.starts.max() <= MAX_USES
    assert ends >= number * num_envs * (length // limit - 1)
    assert counted.starts.sum() == num_envs + ends, "every episode that began is counted"
    assert (counted.starts == MAX_USES).mean() > 0.5
