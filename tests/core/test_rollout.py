"""Rollouts in the corridor: masks, snapshot starts, episode ends and counts."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corridor_runs import KNOWLEDGE

from flowrl_core.envs.adapter import Terrain, make_adapter, plain_states
from flowrl_core.envs.automaton import NUM_STEP_FEATURES, lower_plan
from flowrl_core.envs.chart import charted
from flowrl_core.envs.corridor.vocabulary import CORRIDOR, CORRIDOR_ITEMS
from flowrl_core.envs.snapshots import no_snapshots
from flowrl_core.envs.worlds import PoolUse, empty_pool, replace_used, used_up
from flowrl_core.learning.learner import training_mode
from flowrl_core.learning.rollout import begin, expert_inputs, narrow, rollout, widen
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.networks.policy_value import ActorCritic
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.experts import stack_experts
from flowrl_core.skills.model import Plan, Step
from flowrl_core.types import View

ADAPTER = plain_states(make_adapter("corridor"))
BENCH_THEN_DIG = Plan("dig_a", (Step("goto_bench", 1), Step("dig_a", 1)))
MAKE_B = Plan("make_b", (Step("dig_a", 1), Step("goto_bench", 1), Step("make_b", 1)))


def arrays(plan, limit=40, **options):
    experts = {name: local for local, name in enumerate(plan.skills)}
    return lower_plan(plan, KNOWLEDGE.skills, experts, CORRIDOR, episode_limit=limit, **options)


@pytest.fixture
def rollouts(learner, play, fresh_params):
    """Play several rollouts in a row as training does; every leaf of the result is [T, B, ...]."""

    def roll(plan, number, snapshot_fraction=0.0):
        pool = learner.fill(jax_stream(1))
        playing, snapshots = learner.begin(pool), learner.functions.play.zeros("snapshots")
        use = jax.tree.map(jax.numpy.asarray, PoolUse(np.zeros(32, np.int32), np.int32(0), np.int32(0)))
        mode = training_mode(snapshot_fraction)
        params = jax.tree.map(jax.numpy.asarray, fresh_params)
        seen, all_stats = [], []
        for key in (jax_stream(2, k) for k in range(number)):
            playing, use, snapshots, trajectory, _, stats = play(params, playing, pool, use, snapshots, plan, mode, key)
            seen.append(jax.tree.map(np.asarray, trajectory))
            all_stats.append(jax.tree.map(np.asarray, stats))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *seen), all_stats

    return roll


def test_with_masks_no_step_ever_uses_an_action_that_its_skill_does_not_allow(rollouts):
    plan = arrays(MAKE_B, use_masks=True)
    trajectory, _ = rollouts(plan, 6)
    assert set(np.unique(trajectory.step)) >= {0, 1}, "more than one mask was at work"
    assert plan.actions[trajectory.step, trajectory.action].all()
    np.testing.assert_array_equal(trajectory.allowed, plan.actions[trajectory.step])


def played(adapter, plan, **mode):
    """Play one rollout of training in an adapter that differs from the corridor's; leaves [32, 8, ...]."""
    network = ActorCritic(width=8, num_actions=adapter.num_actions)
    num_inputs = adapter.observation_size + NUM_STEP_FEATURES
    params = stack_experts([initial_params(np.random.default_rng(0), num_inputs, 8, adapter.num_actions)], 1)
    pool, use = replace_used(adapter, empty_pool(adapter, 8), used_up(8), jax.random.PRNGKey(0), jnp.int32(1))
    playing, use = begin(adapter, pool, use, training_mode(), batch=8)
    play = jax.jit(functools.partial(rollout, adapter, network, length=32))
    key = jax.random.PRNGKey(1)
    *_, seen, _, _ = play(params, playing, pool, use, no_snapshots(pool, 4), plan, training_mode(**mode), key)
    return jax.tree.map(np.asarray, seen)


@pytest.mark.long
@pytest.mark.parametrize("use_masks", [True, False])
def test_masks_forbid_what_is_seen_to_kill(use_masks):
    def deadly(obs, state):
        return jnp.zeros(len(CORRIDOR.actions), bool).at[0].set(obs[0] < 0.5)  # to go left, but for the bench

    plan = arrays(Plan("dig_a", (Step("dig_a", 9),)), use_masks=use_masks)
    seen = played(replace(ADAPTER, deadly=deadly), plan)
    at_bench, left = seen.inputs.flags[..., 0], seen.allowed[..., 0]
    assert at_bench.any() and not at_bench.all()
    np.testing.assert_array_equal(left, at_bench if use_masks else np.ones_like(left))


@pytest.mark.long
def test_an_expert_that_sees_the_canonical_view_sees_and_acts_in_it_and_another_does_not():
    def canonical(obs, sight):
        """The corridor as if the target were to the right."""
        is_left, cells = sight[0] < 0, CORRIDOR.observation_size - len(CORRIDOR_ITEMS)
        moves = jnp.where(is_left, jnp.array([1, 0]), jnp.array([0, 1]))
        seen = jnp.concatenate([jnp.where(is_left, obs[:cells][::-1], obs[:cells]), obs[cells:]])
        return seen, jnp.abs(sight), jnp.arange(len(CORRIDOR.actions)).at[:2].set(moves)

    def deadly(obs, state):
        return jnp.zeros(len(CORRIDOR.actions), bool).at[1].set(obs[2] > 0.5)  # to go right, in the third cell

    adapter = replace(ADAPTER, canonical=canonical, deadly=deadly)
    for views, sign in (({}, -1), ({"goto_bench": View.CANONICAL}, 1)):
        seen = played(adapter, arrays(BENCH_THEN_DIG, use_masks=True, views=views))
        cell, offset = seen.inputs.flags[..., :6].argmax(-1), seen.inputs.numbers[..., -4]
        # The bench is the first cell, and what is sought; who begins there is done, wherever it goes.
        goes = (seen.step == 0) & ~seen.is_boundary & (offset != 0)
        np.testing.assert_array_equal(np.sign(offset[goes]), sign)
        here = cell if sign < 0 else 5 - cell
        closer = np.abs(offset[1:]) < np.abs(offset[:-1]) - 0.01
        is_towards = seen.action[:-1] == (0 if sign < 0 else 1)
        np.testing.assert_array_equal(closer[goes[:-1]], is_towards[goes[:-1]])
        forbidden = ~seen.allowed[..., 1 if sign < 0 else 0]
        np.testing.assert_array_equal(forbidden[goes], here[goes] == 2)
        digs = seen.step == 1
        assert digs.any() and (seen.inputs.numbers[..., -4][digs] >= 0).all()


@pytest.mark.long
def test_an_expert_without_a_compass_is_told_of_targets_in_view_alone():
    corridor, cells = make_adapter("corridor"), 6

    def near_sighted(obs, state, target):
        features = corridor.sight(obs, state, target)
        return jnp.where(features[5] > 0.5, features, 0.0)

    terrain = Terrain(
        size=(1, cells),
        view_size=(1, 3),
        position=lambda state: jnp.stack([jnp.int32(0), state.cell]),
        view=lambda obs: jnp.where(jnp.arange(-1, 2) + obs[:cells].argmax() == 0, 2, 1)[None],
        targets=np.array([1 << 2, 0], np.uint32),
        ground=np.array([1 << 1, 1 << 1], np.uint32),
    )
    adapter = charted(replace(corridor, sight=near_sighted, terrain=terrain))
    plan = functools.partial(arrays, Plan("goto_bench", (Step("goto_bench", 1),)))
    for views, knows in (({}, False), ({"goto_bench": View.CANONICAL}, False), ({"goto_bench": View.COMPASS}, True)):
        seen = played(adapter, plan(views=views))
        direction, in_view = seen.inputs.numbers[..., -6], seen.inputs.numbers[..., -2]
        away = in_view < 0.5
        assert away.any() and (direction[~away] <= 0).all()
        assert (direction[away] < 0).all() if knows else (direction[away] == 0).all()


def test_without_masks_the_same_experts_use_every_action(rollouts):
    trajectory, _ = rollouts(arrays(MAKE_B), 6)
    assert trajectory.allowed.all()
    assert len(np.unique(trajectory.action)) == len(CORRIDOR.actions)


def test_the_log_probability_is_that_of_the_allowed_actions_alone(rollouts):
    trajectory, _ = rollouts(arrays(MAKE_B, use_masks=True), 2)
    allowed = trajectory.allowed.sum(-1)
    # Untrained experts are all but uniform.
    np.testing.assert_allclose(trajectory.log_prob, -np.log(allowed), atol=0.1)


def first_frames(trajectory):
    """bool[T, B]: the first frame of an episode, those at the very beginning left out."""
    before = np.roll(trajectory.is_over, 1, axis=0)
    before[0] = False
    return before


def test_a_snapshot_start_is_at_the_last_step_with_the_time_that_had_passed(rollouts):
    trajectory, _ = rollouts(arrays(BENCH_THEN_DIG), 30, snapshot_fraction=1.0)
    starts = first_frames(trajectory) & trajectory.is_snapshot
    assert starts.sum() > 50
    assert (trajectory.step[trajectory.is_snapshot] == 1).all() and (trajectory.expert[starts] == 1).all()
    assert (trajectory.time[starts] > 1).all(), "the time that the way to the entry took counts"
    at_the_bench = trajectory.inputs.flags[starts][:, 0]
    assert at_the_bench.all(), "the entry of dig_a is where goto_bench ended"


def test_other_starts_are_at_the_first_step_with_no_time_passed(rollouts):
    trajectory, _ = rollouts(arrays(BENCH_THEN_DIG), 10, snapshot_fraction=0.5)
    starts = first_frames(trajectory) & ~trajectory.is_snapshot
    assert starts.any()
    assert (trajectory.step[starts] == 0).all() and (trajectory.time[starts] == 1).all()


def test_without_a_share_for_snapshots_no_episode_begins_at_one(rollouts):
    trajectory, _ = rollouts(arrays(BENCH_THEN_DIG), 20)
    assert not trajectory.is_snapshot.any()


def test_inputs_are_stored_small_and_come_back_bit_for_bit(learner):
    num_flags = ADAPTER.num_flags
    inputs = np.random.default_rng(0).normal(size=(3, 5, num_flags + 7)).astype(np.float32)
    inputs[..., :num_flags] = np.random.default_rng(1).integers(0, 2, (3, 5, num_flags))
    stored = narrow(inputs, num_flags)
    assert stored.flags.nbytes == 3 * 5 * num_flags
    assert np.asarray(widen(stored)).tobytes() == inputs.tobytes()


def test_a_trajectory_holds_what_the_experts_saw(learner, fresh_params):
    plan = arrays(BENCH_THEN_DIG)
    pool = learner.fill(jax.random.PRNGKey(1))
    playing = learner.begin(pool)
    seen = np.asarray(expert_inputs(ADAPTER, plan, playing)[0])
    _, trajectory = learner.play(fresh_params, playing, pool, plan, jax.random.PRNGKey(0))
    assert trajectory.inputs.flags.shape[-1] == ADAPTER.num_flags > 0
    assert np.asarray(widen(trajectory.inputs))[0].tobytes() == seen.tobytes()


def test_an_episode_ends_at_its_limit_and_only_then_unless_the_plan_is_done(rollouts):
    trajectory, _ = rollouts(arrays(MAKE_B, limit=7), 5)
    assert trajectory.time.max() == 7
    np.testing.assert_array_equal(trajectory.is_over, trajectory.is_finished | (trajectory.time == 7))
    assert (trajectory.is_boundary == (trajectory.is_done | trajectory.is_over)).all()


def test_statistics_count_what_the_trajectory_shows(rollouts):
    trajectory, stats = rollouts(arrays(BENCH_THEN_DIG), 12, snapshot_fraction=0.5)
    ends = trajectory.is_over & ~trajectory.is_snapshot
    assert sum(s.episodes for s in stats) == ends.sum()
    assert sum(s.finished for s in stats) == (ends & trajectory.is_finished).sum()
    for step in (0, 1):
        mine = trajectory.step == step
        assert sum(s.attempts[step] for s in stats) == (mine & trajectory.is_boundary).sum()
        assert sum(s.successes[step] for s in stats) == (mine & trajectory.is_done).sum()
        assert sum(s.routed_frames[step] for s in stats) == (trajectory.expert == step).sum()
    assert sum(s.routed_frames.sum() for s in stats) == trajectory.action.size
