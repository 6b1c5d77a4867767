"""Guards: who acts when, by condition and priority, and that a guard only splits the policy by state."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corridor_runs import KNOWLEDGE

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.automaton import lower_plan, read_registers, step_features
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.guards import NONE, on_duty
from flowrl_core.errors import PlanError
from flowrl_core.learning.learner import training_mode
from flowrl_core.learning.returns import advantages
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import MAX_GUARDS, Guard, Plan, Skill, Step

ADAPTER = make_adapter("corridor")
AT_MINE = Guard("dist.mine <= 1", "dist.mine >= 4", "gained.a")
AT_BENCH = Guard("near.bench", "dist.bench >= 2", "gained.b")
NEVER = Guard("inv.p >= 9", "inv.p <= 8", "gained.p")
DIG = Plan("dig_a", (Step("dig_a", 1),))


def skills_with(**guards):
    """The corridor's skills, of which those named declare guards."""
    return dict(KNOWLEDGE.skills) | {name: replace(KNOWLEDGE.skills[name], guard=g) for name, g in guards.items()}


def arrays(plan, skills, experts=None, **options):
    experts = experts or {name: number for number, name in enumerate(plan.skills)}
    return lower_plan(plan, skills, experts, CORRIDOR, episode_limit=40, **options)


def states(*cells):
    _, blank = ADAPTER.reset(jax.random.PRNGKey(0))
    placed = [ADAPTER.place(blank, {"dist.bench": cell})[1] for cell in cells]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *placed)


def who(plan, cells, before):
    now = jax.vmap(lambda s: ADAPTER.read(jnp.zeros(0), s))(states(*cells))
    registers = read_registers(ADAPTER, plan, jnp.zeros(len(cells), jnp.int32), now, now, now)
    return np.asarray(on_duty(plan.guards, lambda: registers, jnp.array(before))).tolist()


def test_a_guard_takes_over_where_its_condition_holds_and_acts_until_it_gives_back():
    plan = arrays(replace(DIG, guards=("make_b",)), skills_with(make_b=AT_MINE))
    # The mine is cell 5. Between cell 4, where it takes over, and cell 1, where it gives back, it only goes on.
    assert who(plan, [0, 1, 2, 3, 4, 5], [NONE] * 6) == [NONE, NONE, NONE, NONE, 0, 0]
    assert who(plan, [0, 1, 2, 3, 4, 5], [0] * 6) == [NONE, NONE, 0, 0, 0, 0]


def test_of_two_guards_the_first_goes_before_the_second_even_while_that_acts():
    early = Guard("dist.mine <= 2", "dist.mine >= 3", "gained.a")
    plan = arrays(replace(DIG, guards=("make_b", "make_c")), skills_with(make_b=AT_MINE, make_c=early))
    assert who(plan, [3, 4], [NONE, NONE]) == [1, 0]
    assert who(plan, [3, 4], [1, 1]) == [1, 0], "the first takes over from the second"
    assert who(plan, [3, 4], [0, 0]) == [0, 0], "the second waits until the first gives back"


def test_a_plan_without_guards_has_none_on_duty():
    assert who(arrays(DIG, KNOWLEDGE.skills), [0, 5], [NONE, NONE]) == [NONE, NONE]


def test_a_guard_sees_its_own_target_and_no_progress_of_the_step():
    plan = arrays(replace(DIG, guards=("make_b",)), skills_with(make_b=AT_MINE))
    obs, placed = jnp.zeros((1, ADAPTER.observation_size)), states(3)
    now = ADAPTER.read(jnp.zeros(0), jax.tree.map(lambda x: x[0], placed))[None]
    told = [
        np.asarray(step_features(ADAPTER, plan, jnp.array([0]), jnp.array([guard]), obs, placed, now, now))[0]
        for guard in (NONE, 0)
    ]
    assert told[0][3] == 1 and told[1][3] == -1, "the mine lies to the right, the bench, make_b's target, to the left"
    np.testing.assert_allclose(told[1][:3], [0.1, 0, 0.1])


def test_too_many_guards_and_skills_that_declare_none_are_refused():
    with pytest.raises(PlanError, match="declares no guard"):
        arrays(replace(DIG, guards=("make_b",)), KNOWLEDGE.skills)
    many = [f"make_{item}" for item in "bcdef"]
    with pytest.raises(PlanError, match=f"more than {MAX_GUARDS}"):
        arrays(replace(DIG, guards=tuple(many)), skills_with(**dict.fromkeys(many, AT_MINE)))


@pytest.fixture
def rollout(learner, play, fresh_params):
    """Play rollouts of training; every leaf of the result is [T, B, ...]."""

    def roll(plan, number=3, **mode):
        pool = learner.fill(jax_stream(1))
        playing, snapshots = learner.begin(pool), learner.functions.play.zeros("snapshots")
        use, params = learner.functions.play.zeros("use"), jax.tree.map(jnp.asarray, fresh_params)
        seen = []
        for key in (jax_stream(2, k) for k in range(number)):
            playing, use, snapshots, trajectory, value, stats = play(
                params, playing, pool, use, snapshots, plan, training_mode(**mode), key
            )
            seen.append(jax.tree.map(np.asarray, (trajectory, value, stats)))
        trajectory = jax.tree.map(lambda *parts: np.concatenate(parts), *(one[0] for one in seen))
        return trajectory, seen[-1][1], [one[2] for one in seen]

    return roll


def equal(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_a_guard_that_never_takes_over_changes_no_bit(rollout):
    plain, _, _ = rollout(arrays(DIG, KNOWLEDGE.skills), shaping_weight=1.0)
    guarded, _, stats = rollout(arrays(replace(DIG, guards=("make_p",)), skills_with(make_p=NEVER)), shaping_weight=1.0)
    assert equal(plain, guarded) and not any(one.guarded.any() for one in stats)


def test_a_guard_that_is_a_copy_of_the_steps_expert_changes_neither_play_nor_advantages(rollout):
    copy = Skill("copy", "", KNOWLEDGE.skills["dig_a"].program, target="mine", guard=AT_MINE)
    skills = dict(KNOWLEDGE.skills) | {"copy": copy}
    plain = rollout(arrays(DIG, skills, {"dig_a": 3}))
    guarded = rollout(arrays(replace(DIG, guards=("copy",)), skills, {"dig_a": 3, "copy": 3}))
    acted = guarded[0].guard >= 0
    assert acted.any() and not acted.all()
    assert equal(plain[0], replace(guarded[0], guard=plain[0].guard))
    for trajectory, last, _ in (plain, guarded):
        rates = {"discount": 0.99, "gae_lambda": 0.9, "is_bootstrap": jnp.bool_(True)}
        t = trajectory
        found = advantages(t.reward, t.value, last, t.is_boundary, t.is_over, **rates)
        np.testing.assert_array_equal(found, advantages(*_plain_arguments(plain), **rates))


def _plain_arguments(played):
    t, last, _ = played
    return t.reward, t.value, last, t.is_boundary, t.is_over


def test_frames_go_to_the_guard_that_acts_under_its_own_mask_and_are_counted(rollout):
    skills = skills_with(make_b=AT_MINE, goto_bench=AT_BENCH)
    plan = Plan("dig_a", (Step("dig_a", 9),), ("make_b", "goto_bench"))
    lowered = arrays(plan, skills, {"dig_a": 0, "make_b": 1, "goto_bench": 2}, use_masks=True)
    trajectory, _, stats = rollout(lowered)
    np.testing.assert_array_equal(trajectory.expert, trajectory.guard + 1)
    assert set(np.unique(trajectory.guard)) == {NONE, 0, 1}
    for number, name in enumerate(("dig_a", "make_b", "goto_bench")):
        mine = trajectory.allowed[trajectory.expert == number]
        assert (mine == [action in skills[name].actions for action in CORRIDOR.actions]).all()
    for number in (0, 1):
        share = (trajectory.guard == number).mean()
        assert np.mean([one.guarded[number] for one in stats]) == pytest.approx(share)
    assert sum(one.routed_frames[:3].sum() for one in stats) == trajectory.action.size


def test_a_guard_earns_the_steps_reward_and_its_own_at_the_weight_of_shaping(rollout):
    guard = replace(AT_MINE, reward="0.5 * closer.mine")
    plan = arrays(Plan("dig_a", (Step("dig_a", 9),), ("make_b",)), skills_with(make_b=guard))
    played = {weight: rollout(plan, shaping_weight=weight)[0] for weight in (0.0, 1.0)}
    acted = played[0.0].guard >= 0
    assert equal(played[0.0], replace(played[1.0], reward=played[0.0].reward)), "a reward does not change play"
    extra = played[1.0].reward - played[0.0].reward
    assert not extra[~acted].any() and set(np.unique(extra[acted])) == {-0.5, 0.0, 0.5}
