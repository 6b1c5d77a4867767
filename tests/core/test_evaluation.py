"""Evaluation: episodes fixed beforehand, sampled actions, worlds never used twice, and what the counts prove."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from corridor_runs import KNOWLEDGE, begin, drive, learn, make_spec
from scipy.stats import binomtest

from flowrl_core.envs.automaton import lower_plan
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.errors import InputError
from flowrl_core.learning.evaluation import Counts, evaluate
from flowrl_core.learning.learner import Learner
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.setups import check_possible
from flowrl_core.statistics import wilson_lower, wilson_upper
from flowrl_core.storage.registry import Registry
from flowrl_core.types import FailedEnds

GOTO_BENCH = Plan("goto_bench", (Step("goto_bench", 1),))
MAKE_B = Plan("make_b", (Step("dig_a", 1), Step("goto_bench", 1), Step("make_b", 1)))


def arrays(plan, limit=40):
    experts = {name: local for local, name in enumerate(plan.skills)}
    return lower_plan(plan, KNOWLEDGE.skills, experts, CORRIDOR, episode_limit=limit)


class Recording(Learner):
    """A learner that keeps the keys of its worlds and what it played (round, trajectory)."""

    def fill(self, key):
        self.keys.append(tuple(int(x) for x in np.asarray(key)))
        return super().fill(key)

    def play(self, *args):
        playing, trajectory = super().play(*args)
        self.played.append((len(self.keys), jax.tree.map(np.asarray, trajectory)))
        return playing, trajectory


def recording(learner):
    """The learner, and lists that fill with the keys of its worlds and with what it played (round, trajectory)."""
    spy = Recording(learner.shapes, learner.functions, learner.worlds)
    vars(spy).update(keys=[], played=[])
    return spy, spy.keys, spy.played


@pytest.mark.parametrize(("successes", "episodes"), [(0, 20), (10, 20), (506, 512), (512, 512), (1, 128), (410, 512)])
@pytest.mark.parametrize("level", [0.05, 0.0125])
def test_the_bounds_are_scipys_one_sided_wilson_bounds(successes, episodes, level):
    low = binomtest(successes, episodes, alternative="greater").proportion_ci(1 - level, method="wilson").low
    high = binomtest(successes, episodes, alternative="less").proportion_ci(1 - level, method="wilson").high
    assert wilson_lower(successes, episodes, level) == pytest.approx(low, abs=1e-12)
    assert wilson_upper(successes, episodes, level) == pytest.approx(high, abs=1e-12)


def test_the_bounds_equal_numbers_worked_out_by_hand():
    # z = 1.6449: centre (0.5 + 0.0676) / 1.1353, spread 1.6449 sqrt(0.0125 + 0.00169) / 1.1353
    assert wilson_lower(10, 20, 0.05) == pytest.approx(0.3274, abs=2e-4)
    assert wilson_upper(10, 20, 0.05) == pytest.approx(0.6726, abs=2e-4)
    assert wilson_lower(0, 20, 0.05) == 0.0 and wilson_upper(20, 20, 0.05) == 1.0


def test_every_environment_counts_its_first_episodes_and_no_others(learner, fresh_params):
    spy, keys, played = recording(learner)
    result = evaluate(spy, fresh_params, arrays(GOTO_BENCH), 16 * 5, jax_stream(4))
    assert result.episodes == 80 and len(keys) == 3, "rounds of 2, 2 and 1 episodes: the pool holds 2 for each"
    won, lengths = 0, []
    for number, share in ((1, 2), (2, 2), (3, 1)):
        parts = [trajectory for of_round, trajectory in played if of_round == number]
        over = np.concatenate([t.is_over for t in parts])
        finished = np.concatenate([t.is_finished for t in parts])
        time = np.concatenate([t.time for t in parts])
        for b in range(16):
            ends = np.flatnonzero(over[:, b])[:share]
            assert len(ends) == share
            won += int(finished[ends, b].sum())
            lengths += [int(time[t, b]) for t in ends if finished[t, b]]
    assert result.successes == won and result.success == won / 80
    assert result.median_length == np.median(lengths)
    assert sum(len(t.is_over) for _, t in played) * 16 == result.frames


def test_quick_successes_do_not_crowd_out_slow_failures(learner, fresh_params):
    spy, _, played = recording(learner)
    result = evaluate(spy, fresh_params, arrays(GOTO_BENCH, limit=40), 32, jax_stream(5))
    everything = np.concatenate([t.is_finished[t.is_over] for _, t in played])
    assert len(everything) > 32, "quick environments went on, and what they did then is not counted"
    assert result.success < everything.mean()


def test_an_episode_that_runs_out_of_time_is_a_failure(learner, fresh_params):
    result = evaluate(learner, fresh_params, arrays(MAKE_B, limit=3), 64, jax_stream(0))
    assert (result.episodes, result.successes, result.deaths) == (64, 0, 0)
    assert np.isnan(result.median_length)
    assert result.step_attempts[0] >= 64 and result.step_successes[2] == 0
    timeouts = [ends.timed_out for ends in result.step_ends]
    assert sum(timeouts) == 64 and all(ends.died == ends.stranded == 0 for ends in result.step_ends)
    # Each try that was not done was the episode's last; a step may also be done just when time is up.
    assert (np.array(timeouts) >= np.subtract(result.step_attempts, result.step_successes)).all()


def test_how_failed_episodes_ended_is_counted_by_the_step_they_ended_in():
    def leaf(*rows):
        return np.array(rows)

    # Two environments, four frames: one dies in step 1, wins, and strands in step 0; the other runs out of time in
    # step 0, dies there, and plays on.
    trajectory = SimpleNamespace(
        is_over=leaf([True, False], [False, True], [True, True], [True, False]),
        is_finished=leaf([False, False], [False, False], [True, False], [False, False]),
        is_dead=leaf([True, False], [False, False], [False, True], [False, False]),
        is_stranded=leaf([False, False], [False, False], [False, False], [True, False]),
        is_boundary=leaf([True, False], [False, True], [True, True], [True, False]),
        is_done=leaf([False, False], [False, False], [True, False], [False, False]),
        step=leaf([1, 0], [1, 0], [1, 0], [0, 0]),
        episode=leaf([0, 0], [1, 0], [1, 1], [2, 2]),
        time=leaf([5, 5], [1, 6], [2, 1], [1, 1]),
    )
    for quota, deaths, stranded in ((1, (0, 1), 0), (2, (1, 1), 0), (3, (1, 1), 1)):
        counts = Counts(2)
        counts.add(trajectory, quota)
        found = counts.evaluation()
        assert found.step_ends == (FailedEnds(deaths[0], 1, stranded), FailedEnds(deaths[1], 0, 0))
        assert found.deaths == sum(deaths) and found.episodes - found.successes == found.deaths + 1 + stranded


def test_actions_are_sampled_not_the_likeliest(learner, fresh_params):
    spy, _, played = recording(learner)
    evaluate(spy, fresh_params, arrays(MAKE_B), 64, jax_stream(6))
    action = np.concatenate([t.action.ravel() for _, t in played])
    share = np.bincount(action, minlength=len(CORRIDOR.actions)) / action.size
    np.testing.assert_allclose(share, 1 / len(CORRIDOR.actions), atol=0.03)  # untrained experts are all but uniform


def test_no_episode_of_an_evaluation_begins_from_a_snapshot(learner, fresh_params):
    spy, _, played = recording(learner)
    evaluate(spy, fresh_params, arrays(MAKE_B), 64, jax_stream(6))
    assert not any(t.is_snapshot.any() for _, t in played)


def test_an_evaluation_is_a_function_of_its_key(learner, fresh_params):
    plan = arrays(GOTO_BENCH, limit=12)
    first, again, other = (evaluate(learner, fresh_params, plan, 64, jax_stream(k)) for k in (7, 7, 8))
    assert first == again != other


def test_episodes_that_the_environments_cannot_share_are_refused_with_a_number_that_works(learner, fresh_params):
    with pytest.raises(InputError, match=r"500 is not a multiple of num_envs \(16\).*496"):
        evaluate(learner, fresh_params, arrays(GOTO_BENCH), 500, jax_stream(0))


def test_such_episodes_are_refused_before_a_campaign_begins():
    spec = make_spec("bad", "dig_a", overrides=["dig_a.episodes=500"])
    with pytest.raises(InputError, match=r"evaluation\.episodes: 500 is not a multiple of training\.num_envs"):
        check_possible(resolve("dig_a", spec))


def test_no_two_looks_of_a_registry_share_a_world(home):
    looks = {"looks": 3, "target": 0.01, "min_frames": 512, "min_episodes": 8, "episodes": 32, "threshold": 0.99}
    with Registry.open(home) as registry:
        names = ("dig_a", "goto_bench")
        runs = [
            run.id for name in names for run in registry.skill_runs.of(registry.skills.get("basics", name).identity)
        ]
    first = make_spec("tries", "make_b", "make_c", training={"frames": 1_500}, evaluation=looks)
    runs += [learn(home, first, skill)[0] for skill in ("make_b", "make_c")]
    again = begin(home, first.model_copy(update={"retry": ["make_b"]}), "make_b")
    assert drive(home, again.run, resolve("make_b", first)).verdict == "failed"
    with Registry.open(home) as registry:
        taken = [look.worlds for run in [*runs, again.run] for look in registry.skill_runs.looks(run)]
    assert len(taken) >= 2 + 3 * 2
    assert len(set(taken)) == len(taken)


def test_worlds_of_a_look_are_new_in_every_round_and_are_none_of_the_training(learner, fresh_params):
    spy, keys, _ = recording(learner)
    for number in (1, 2, 3):
        evaluate(spy, fresh_params, arrays(GOTO_BENCH), 16 * 6, jax_stream(9, "look", number))
    evaluate(spy, fresh_params, arrays(GOTO_BENCH), 16 * 6, jax_stream(9, "heads"))
    keys.append(tuple(int(x) for x in np.asarray(jax_stream(9, "worlds"))))
    assert len(keys) == len(set(keys)) == 4 * 3 + 1
