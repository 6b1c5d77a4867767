"""FlowRL really learns: measured by the same evaluation before and after, on plans of one and of three steps."""

import numpy as np
import pytest
from corridor_runs import facts, learn, make_spec

from flowrl_core.learning.evaluation import evaluate
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.experts import build_remap, stack_experts
from flowrl_core.skills.model import Plan, Step
from flowrl_core.stages.skill.prepare import expert_params
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get


def stacked(home, plan, *, is_trained):
    """Parameters of the plan's experts as their bundle has them, or untrained ones; and their local places."""
    from corridor_runs import KNOWLEDGE, TRAINING

    from flowrl_core.envs.automaton import lower_plan
    from flowrl_core.envs.corridor.vocabulary import CORRIDOR
    from flowrl_core.specs.skill import SkillConfig

    with Registry.open(home) as registry:
        experts = {e.name: e.global_index for e in registry.library.experts() if e.name in plan.skills}
        identity = next(e.identity for e in registry.library.experts() if e.name == plan.target)
        versions = registry.library.bundle(identity).versions
    remap = build_remap(experts.values())
    config = SkillConfig(training=TRAINING)
    trees = [
        get(home, versions[index].content) if is_trained else expert_params(home, None, "corridor", config, seed=index)
        for index in remap.global_to_local
    ]
    local = {name: remap.global_to_local[index] for name, index in experts.items()}
    plan_arrays = lower_plan(plan, KNOWLEDGE.skills, local, CORRIDOR, episode_limit=TRAINING.episode_limit)
    return stack_experts(trees, TRAINING.max_experts), plan_arrays


@pytest.mark.parametrize("skill", ["dig_a", "goto_bench"])
def test_a_learned_expert_does_far_better_than_an_untrained_one_in_the_same_evaluation(basics, learner, skill):
    plan = Plan(skill, (Step(skill, 1),))
    before, after = (
        evaluate(learner, *stacked(basics, plan, is_trained=trained), 512, jax_stream(11)).success
        for trained in (False, True)
    )
    assert after >= 0.95
    assert before <= after - 0.3


def test_a_plan_of_three_steps_is_learned_from_about_0_to_over_095(home, learner):
    run, outcome = learn(home, make_spec("real", "make_b", evaluation={"target": 0.97}), "make_b")
    assert outcome.verdict == "learned" and outcome.success >= 0.95 and outcome.success_lower_bound >= 0.9
    lines = facts(home, run)["metrics"]
    begins = [line["steps"][2] for line in lines[:6] if line["steps"][2] is not None]
    assert np.median(begins) < 0.4, "the new expert knew nothing of its step at first"

    plan = Plan("make_b", (Step("dig_a", 1), Step("goto_bench", 1), Step("make_b", 1)))
    untrained = evaluate(learner, *stacked(home, plan, is_trained=False), 512, jax_stream(12))
    trained = evaluate(learner, *stacked(home, plan, is_trained=True), 512, jax_stream(12))
    assert untrained.success <= 0.05 and trained.success >= 0.95
    assert np.prod(np.array(trained.step_successes) / trained.step_attempts) == pytest.approx(trained.success)


def test_the_frames_of_a_run_are_routed_to_its_experts_and_none_is_lost(home):
    run, outcome = learn(home, make_spec("frames", "make_b", training={"frames": 1_000}), "make_b")
    assert outcome.run_frames == 1_024, "four updates of 16 environments and 16 steps"
    assert sum(merge.routed_frames for merge in outcome.merges) == 1_024
    with Registry.open(home) as registry:
        for merge in outcome.merges:
            parent = registry.library.version(merge.version).parent
            before = registry.library.version(parent).frames if parent else 0
            assert merge.frames == before + merge.routed_frames
    for line in facts(home, run)["metrics"]:
        assert sum(line["routed_frames"]) == 256
