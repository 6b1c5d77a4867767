"""The plan automaton on the corridor, played by hand: pointer, rewards, boundaries, limits and snapshots."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.automaton import judge, lower_plan, step_features
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.guards import NONE
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
NOBODY = jnp.array([NONE])
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
    first = judge(ADAPTER, arrays(), jnp.array([0]), NOBODY, after, before, start)
    assert (float(first.reward[0]), bool(first.is_done[0])) == (1.0, True)
    second = judge(ADAPTER, arrays(), jnp.array([1]), NOBODY, after, before, start)
    assert (float(second.reward[0]), bool(second.is_done[0])) == (-0.5, False)


def test_the_count_decides_when_a_step_is_done():
    now, start = read(state(5, a=1)), read(state(5))
    assert not judge(ADAPTER, arrays(), jnp.array([0]), NOBODY, now, start, start).is_done[0]
    one = arrays(Plan("dig_a", (Step("dig_a", 1),)))
    assert judge(ADAPTER, one, jnp.array([0]), NOBODY, now, start, start).is_done[0]


def features(plan, step, s, start):
    obs = jnp.zeros((1, ADAPTER.observation_size))
    batched = jax.tree.map(lambda x: x[None], s)
    return np.asarray(step_features(ADAPTER, plan, jnp.array([step]), NOBODY, obs, batched, read(s), read(start)))[0]


def test_an_expert_is_told_count_progress_remaining_and_the_way_to_its_target():
    told = features(arrays(), 0, state(3, a=1), state(3))
    np.testing.assert_allclose(told, [0.2, 0.1, 0.1, 1, 0, 2 / 6, 0, 1, 0], rtol=1e-6)


def test_an_experts_inputs_do_not_depend_on_its_place_in_the_plan_or_on_its_local_index():
    alone = arrays(Plan("make_b", (Step("make_b", 1),)), {"make_b": 0})
    late = arrays(Plan("make_b", (Step("dig_a", 2), Step("dig_a", 1), Step("make_b", 1))), {"dig_a": 3, "make_b": 5})
    s, start = state(2, a=3), state(4, a=3)
    np.testing.assert_array_equal(features(alone, 0, s, start), features(late, 2, s, start))


def test_a_step_is_done_only_where_what_later_steps_need_is_kept():
    # The bench is needed by make_b, so digging that keeps it, as the plan asks, cannot be done at the mine.
    skills = SKILLS | {
        "dig_a": replace(SKILLS["dig_a"], requirements={"near.bench": Linear()}),
        "make_b": replace(SKILLS["make_b"], requirements={"near.bench": Linear(fixed=1)}),
    }
    plan = lower_plan(PLAN, skills, {"dig_a": 0, "make_b": 1}, CORRIDOR, episode_limit=50)
    far, near, start = read(state(5, a=2)), read(state(0, a=2)), read(state(5))
    step = jnp.array([0])
    assert not judge(ADAPTER, plan, step, NOBODY, far, start, start).is_done[0]
    assert judge(ADAPTER, plan, step, NOBODY, near, start, start).is_done[0]
    assert judge(ADAPTER, arrays(), step, NOBODY, far, start, start).is_done[0], "this plan needs no bench"


def test_a_player_is_stranded_who_lacks_what_a_later_step_needs_and_this_one_cannot_gain():
    skills = SKILLS | {"make_b": replace(SKILLS["make_b"], consumption={"inv.a": Linear(1)})}
    steps = (Step("dig_a", 3), Step("make_b", 1), Step("make_b", 2))
    plan = lower_plan(Plan("make_b", steps), skills, {"dig_a": 0, "make_b": 1}, CORRIDOR, episode_limit=50)

    def is_stranded(step, **items):
        now = read(state(0, **items))
        return bool(judge(ADAPTER, plan, jnp.array([step]), NOBODY, now, now, now).is_stranded[0])

    assert not is_stranded(0, a=0), "the first step gains it"
    assert is_stranded(1, a=1) and not is_stranded(1, a=2), "two must be left for the last step"
    assert not is_stranded(2, a=0), "no step comes after the last one"


def test_masks_apply_only_when_asked_for_and_only_to_their_own_step():
    assert np.asarray(arrays().actions).all()
    masked = np.asarray(arrays(use_masks=True).actions)
    assert [CORRIDOR.actions[k] for k in np.nonzero(masked[0])[0]] == ["dig"]
    assert masked[1].all()


def test_masks_always_allow_the_basic_actions_of_the_environment():
    vocabulary = replace(CORRIDOR, basic_actions=("left", "right"))
    plan = lower_plan(PLAN, SKILLS, {"dig_a": 0, "make_b": 1}, vocabulary, episode_limit=50, use_masks=True)
    allowed = np.asarray(plan.actions)
    assert [CORRIDOR.actions[k] for k in np.nonzero(allowed[0])[0]] == ["left", "right", "dig"]


def test_all_plans_have_the_same_shapes():
    shapes = [jax.tree.map(np.shape, arrays(plan)) for plan in (PLAN, Plan("dig_a", (Step("dig_a", 9),)))]
    assert shapes[0] == shapes[1]


def test_a_plan_that_does_not_fit_is_refused():
    with pytest.raises(PlanError, match="more than"):
        arrays(Plan("dig_a", (Step("dig_a", 1),) * (MAX_STEPS + 1)))
