"""The learner's compiled functions: what they consume, what they cost, and that files say the same as the code."""

import jax
import numpy as np
import pytest
from corridor_runs import KNOWLEDGE, TRAINING

from flowrl_core.compiled.functions import read_functions, trace_functions, write_functions
from flowrl_core.envs.automaton import lower_plan
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.worlds import used_up
from flowrl_core.learning.learner import hyperparameters, training_mode
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Plan, Step

HYPER = hyperparameters(TRAINING)
PLAN = Plan("make_b", (Step("dig_a", 1), Step("goto_bench", 1), Step("make_b", 1)))
ARRAYS = lower_plan(PLAN, KNOWLEDGE.skills, {"dig_a": 0, "goto_bench": 1, "make_b": 2}, CORRIDOR, episode_limit=40)


@pytest.fixture
def state(learner, fresh_params):
    return learner.init(fresh_params, jax_stream(1), jax_stream(2), 4)


def test_a_step_takes_the_memory_of_the_state_before_it(learner, state):
    before = state
    state, _, _ = learner.step(state, ARRAYS, HYPER, training_mode(0.5), 4)
    for name in ("params", "optimizer_state", "playing", "pool", "snapshots"):
        leaves = jax.tree.leaves(getattr(before, name))
        assert all(leaf.is_deleted() for leaf in leaves), f"{name} was donated"
    jax.block_until_ready(state)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("renew", "pool"),
        ("play", "playing"),
        ("play", "snapshots"),
        ("improve", "params"),
        ("improve", "optimizer_state"),
    ],
)
def test_what_is_consumed_is_written_in_place(learner, name, argument):
    function = getattr(learner.functions, name)
    shapes = jax.tree.leaves(function.arguments[argument])
    consumed = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in shapes)
    compiled = function.jitted.lower(*function.arguments.values()).compile()
    assert compiled.memory_analysis().alias_size_in_bytes >= consumed


def test_every_run_begins_with_worlds_of_its_own_choice(learner, fresh_params):
    def first(key):
        return np.asarray(learner.init(fresh_params, jax_stream(key), jax_stream(2), 4).pool.obs)

    waiting = {row.tobytes() for row in learner.worlds.obs}
    assert {row.tobytes() for row in first(1)} <= waiting
    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(3))
    assert len(learner.worlds.obs) == 2 * learner.shapes.world_pool


def test_functions_that_were_written_and_read_do_what_the_traced_ones_do(learner, fresh_params, tmp_path):
    traced = trace_functions(learner.shapes, HYPER)
    write_functions(traced, tmp_path)
    read = read_functions(tmp_path)
    size = learner.shapes.world_pool
    results = []
    for functions in (traced, read):
        new = functions.renew(functions.renew.zeros("pool"), jax.device_put(used_up(size)), jax_stream(5), np.int32(2))
        results.append(jax.tree.map(np.asarray, new))
        assert results[-1][0].obs.any()
        assert functions.play.arguments == learner.functions.play.arguments
    jax.tree.map(np.testing.assert_array_equal, *results)
