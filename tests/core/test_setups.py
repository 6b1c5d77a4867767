"""Setups that cannot lead to a learned skill are found beforehand, and no others are taken for such."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.errors import InputError
from flowrl_core.learning.schedule import look_level, next_action
from flowrl_core.proposals.recorded_transitions import load_transitions
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import origins, resolve
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig
from flowrl_core.stages.skill.setups import check_plan_fits, check_possible, fewest_episodes
from flowrl_core.statistics import wilson_lower

EVALUATIONS = st.builds(
    EvaluationSpec,
    threshold=st.floats(0.01, 0.999),
    level=st.floats(1e-6, 0.49),
    looks=st.integers(1, 16),
    episodes=st.integers(1, 600),
    min_frames=st.integers(0, 3_000),
)


@dataclass(frozen=True)
class Looked:
    frames: int
    lower_bound: float


def config(evaluation=None, **training):
    return SkillConfig.model_validate(
        {
            "training": {"num_envs": 1, "rollout_length": 100, "frames": 3_000, **training},
            "evaluation": evaluation or {},
        }
    )


def refused(made):
    try:
        check_possible(made)
    except InputError as exc:
        return exc
    return None


def best_run(made):
    """How a run ends in which everything succeeds: each update, and each episode of each look."""
    frames, looks, evaluation = 0, [], made.evaluation
    while (action := next_action(frames, made.training.frames, 1.0, looks, evaluation)) in ("train", "look"):
        if action == "train":
            frames += made.training.num_envs * made.training.rollout_length
        else:
            looks.append(Looked(frames, wilson_lower(evaluation.episodes, evaluation.episodes, look_level(evaluation))))
    return action


@given(EVALUATIONS)
def test_a_setup_is_refused_just_where_even_a_run_without_a_failure_would_not_be_learned(evaluation):
    made = config(evaluation)
    assert (refused(made) is None) == (best_run(made) == "learned")


@given(EVALUATIONS, st.integers(1, 64))
def test_the_episodes_that_are_advised_are_the_fewest_that_do(evaluation, multiple):
    level, least = look_level(evaluation), fewest_episodes(evaluation, multiple)
    assert least % multiple == 0

    def proves(episodes):
        return wilson_lower(episodes, episodes, level) >= evaluation.threshold

    assert proves(least) if least else not proves(65_536 // multiple * multiple)
    assert least <= multiple or not proves(least - multiple)


@pytest.mark.parametrize(
    ("changes", "evaluation", "said"),
    [
        (
            {},
            {"episodes": 5, "threshold": 0.75, "min_frames": 0},
            (
                "evaluation.episodes: 5 episodes",
                "evaluation.threshold (0.75)",
                "even 5 successes",
                "Use at least 16 episodes",
            ),
        ),
        ({"num_envs": 64}, {"episodes": 5, "min_frames": 0}, ("cannot prove", "Use at least 64 episodes")),
        ({}, {"episodes": 100, "threshold": 0.99999, "min_frames": 0}, ("cannot prove", "Use a threshold of 0.952 at")),
        ({}, {"level": 5e-324, "min_frames": 0}, ("evaluation.level", "cannot prove")),
        ({"num_envs": 3}, {"min_frames": 0}, ("evaluation.episodes: 512 is not a multiple of training.num_envs (3)",)),
        (
            {},
            {"min_frames": 3_001},
            ("training.frames: 3000 is below evaluation.min_frames (3001)", "Use at least 3001 frames"),
        ),
        (
            {"frames": 99},
            {"min_frames": 0},
            ("training.frames: 99", "training.num_envs (1) times training.rollout_length (100)", "Use at least 100"),
        ),
    ],
)
def test_fields_that_contradict_each_other_are_both_named_with_what_would_do(changes, evaluation, said):
    found = str(refused(config(evaluation, **changes)))
    for text in said:
        assert text in found


def test_a_plan_needs_an_episode_with_the_steps_that_gathering_and_all_else_take_at_least():
    known = load_knowledge("corridor")
    plan = Plan("make_b", (Step("dig_a", 4), Step("goto_bench", 1), Step("make_b", 1)))
    check_plan_fits(config(episode_limit=6), plan, known.skills, known.vocabulary)
    said = r"episode_limit: 5 is too short: the plan of make_b takes at least 6 steps \(dig_a x4 -> .*Use at least 6"
    with pytest.raises(InputError, match=said):
        check_plan_fits(config(episode_limit=5), plan, known.skills, known.vocabulary)


@pytest.mark.parametrize("env", ["corridor", "craftax-classic"])
def test_no_step_that_was_recorded_gained_more_of_an_item_than_the_vocabulary_says(env):
    recorded = load_transitions(env)
    items = [i for i, fluent in enumerate(recorded.vocabulary.fluents) if fluent.name.startswith("inv.")]
    gained = np.diff(recorded.episodes[:, :, items].astype(int), axis=1)
    in_episode = np.arange(gained.shape[1]) < recorded.lengths[:, None]
    assert gained[in_episode].max() == recorded.vocabulary.most_gained


def test_what_contradicts_is_named_where_it_was_set():
    spec = CampaignSpec(training={"frames": 70_000}, overrides=["dig_a.min-frames=1e6"])
    own = {"training": {"frames": 20_000}, "evaluation": {}}
    with pytest.raises(InputError) as found:
        check_possible(resolve("dig_a", spec, **own), origins("dig_a", spec, **own))
    assert str(found.value).startswith(
        "skills.dig_a.training.frames: 20000 is below overrides.dig_a.min-frames (1000000)"
    )
