"""The plan automaton on the corridor, played by hand: pointer, rewards, boundaries, limits and snapshots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.automaton import judge, lower_plan, step_features
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.errors import PlanError
from flowrl_core.programs.model import Program
from flowrl_core.skills.model import MAX_STEPS, Linear, Plan, Skill, Step

ADAPTER = make_adapter("corridor")
SKILLS = {
    "dig_a": Skill(
        "dig_a", "", Program("since.a >= n", "gained.a"), gain={"inv.a": Linear(1)}, target="mine", actions=("dig",)
    ),
    "make_b": Skill("make_b", "", Program("since.b >= n", "gained.b - 0.5"), gain={"inv.b": Linear(1)}, target="bench"),
}
PLAN = Plan("make_b", (Step("dig_a", 2), Step("make_b", 1)))


def arrays(plan=PLAN, experts=None, **kwargs):
    return lower_plan(plan, SKILLS, experts or {"dig_a": 0, "make_b": 1}, CORRIDOR, episode_limit=50, **kwargs)


def state(cell, **items):
    _, blank = ADAPTER.reset(jax.random.PRNGKey(0))
    _, placed = ADAPTER.place(blank, {"dist.bench": cell} | {f"inv.{name}": count for name, count in items.items()})
    return placed


def read(s):
    return ADAPTER.read(jnp.zeros(0), s)[None]


def test_each_step_is_judged_by_its_own_program():
    before, after = read(state(5, a=1)), read(state(5, a=2))
    start = read(state(5))
    first = judge(ADAPTER, arrays(), jnp.array([0]), after, before, start)
    assert (float(first.reward[0]), bool(first.is_done[0])) == (1.0, True)
    second = judge(ADAPTER, arrays(), jnp.array([1]), after, before, start)
    assert (float(second.reward[0]), bool(second.is_done[0])) == (-0.5, False)


def test_the_count_decides_when_a_step_is_done():
    now, start = read(state(5, a=1)), read(state(5))
    assert not judge(ADAPTER, arrays(), jnp.array([0]), now, start, start).is_done[0]
    one = arrays(Plan("dig_a", (Step("dig_a", 1),)))
    assert judge(ADAPTER, one, jnp.array([0]), now, start, start).is_done[0]


def features(plan, step, s, start):
    obs = jnp.zeros((1, ADAPTER.observation_size))
    batched = jax.tree.map(lambda x: x[None], s)
    return np.asarray(step_features(ADAPTER, plan, jnp.array([step]), obs, batched, read(s), read(start)))[0]


def test_an_expert_is_told_count_progress_remaining_and_the_way_to_its_target():
    told = features(arrays(), 0, state(3, a=1), state(3))
    np.testing.assert_allclose(told, [0.2, 0.1, 0.1, 1, 0, 2 / 6, 0, 1, 0], rtol=1e-6)


def test_an_experts_inputs_do_not_depend_on_its_place_in_the_plan_or_on_its_local_index():
    alone = arrays(Plan("make_b", (Step("make_b", 1),)), {"make_b": 0})
    late = arrays(Plan("make_b", (Step("dig_a", 2), Step("dig_a", 1), Step("make_b", 1))), {"dig_a": 3, "make_b": 5})
    s, start = state(2, a=3), state(4, a=3)
    np.testing.assert_array_equal(features(alone, 0, s, start), features(late, 2, s, start))


def test_masks_apply_only_when_asked_for_and_only_to_their_own_step():
    assert np.asarray(arrays().actions).all()
    masked = np.asarray(arrays(use_masks=True).actions)
    assert [CORRIDOR.actions[k] for k in np.nonzero(masked[0])[0]] == ["dig"]
    assert masked[1].all()


def test_all_plans_have_the_same_shapes():
    shapes = [jax.tree.map(np.shape, arrays(plan)) for plan in (PLAN, Plan("dig_a", (Step("dig_a", 9),)))]
    assert shapes[0] == shapes[1]


def test_a_plan_that_does_not_fit_is_refused():
    with pytest.raises(PlanError, match="more than"):
        arrays(Plan("dig_a", (Step("dig_a", 1),) * (MAX_STEPS + 1)))
