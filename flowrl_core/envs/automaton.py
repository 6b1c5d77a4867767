"""The plan as arrays, and the automaton that runs it inside the jitted environment.

A pointer to the current step advances when the step's `done` program is true; the episode ends when the last step is
done, the player dies or time runs out. Everything that distinguishes skills is data, so a new plan compiles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import NUM_TARGET_FEATURES, Adapter
from flowrl_core.envs.evaluator import evaluate
from flowrl_core.errors import PlanError
from flowrl_core.programs.language import check_done, check_reward, lower
from flowrl_core.programs.registers import fill, registers_of
from flowrl_core.programs.tables import NUM_INSTRUCTIONS, Table, stack
from flowrl_core.skills.model import MAX_STEPS, Plan, Skill
from flowrl_core.trees import tree_class
from flowrl_core.types import Leaf
from flowrl_core.vocabulary.model import Vocabulary

__all__ = [
    "NUM_STEP_FEATURES",
    "StepOutcome",
    "PlanArrays",
    "blank_plan",
    "judge",
    "lower_plan",
    "step_features",
]

NUM_STEP_FEATURES = 3 + NUM_TARGET_FEATURES


@tree_class
class PlanArrays:
    """A plan of up to S steps as data. Padded steps repeat the last one.

    Attributes:
        done, reward: the programs of each step as tables, leaves [S, I].
        expert: i32[S] the local expert that acts in the step.
        count: f32[S] target count n.
        progress: i32[S] index of the base fluent whose change since the start of the step counts as progress.
        target: i32[S] index of the target block, -1 for none.
        actions: bool[S, A] the actions that the step may use.
        num_steps: i32[] length of the plan.
        episode_limit: i32[] steps after which an episode fails.
    """

    done: Table
    reward: Table
    expert: Leaf
    count: Leaf
    progress: Leaf
    target: Leaf
    actions: Leaf
    num_steps: Leaf
    episode_limit: Leaf


@tree_class
class StepOutcome:
    """The programs' results for one transition: reward f32[B] and whether the current step is done bool[B]."""

    reward: jax.Array
    is_done: jax.Array


def lower_plan(
    plan: Plan,
    skills: Mapping[str, Skill],
    experts: Mapping[str, int],
    vocabulary: Vocabulary,
    *,
    episode_limit: int,
    use_masks: bool = False,
) -> PlanArrays:
    """Return the plan as arrays.

    Args:
        experts: the local expert of each skill of the plan.
        use_masks: restrict each step to its skill's declared actions.

    Raises:
        PlanError: the plan has more than MAX_STEPS steps.
        ProgramError: a program is invalid or too large.
    """
    if len(plan.steps) > MAX_STEPS:
        raise PlanError(
            plan.target, f"its plan has {len(plan.steps)} steps, more than {MAX_STEPS}", "Use smaller counts"
        )
    names = [fluent.name for fluent in vocabulary.fluents]
    mine = [skills[step.skill] for step in plan.steps]
    mine += mine[-1:] * (MAX_STEPS - len(mine))
    steps = [*plan.steps, *plan.steps[-1:] * (MAX_STEPS - len(plan.steps))]
    masks = [skill.actions if use_masks and skill.actions else vocabulary.actions for skill in mine]
    targets = [vocabulary.targets.index(skill.target) if skill.target else -1 for skill in mine]
    return PlanArrays(
        done=stack([lower(check_done(skill.program.done, vocabulary), vocabulary) for skill in mine]),
        reward=stack([lower(check_reward(skill.program.reward, vocabulary), vocabulary) for skill in mine]),
        expert=np.array([experts[step.skill] for step in steps], np.int32),
        count=np.array([step.n for step in steps], np.float32),
        progress=np.array([names.index(skill.progress) for skill in mine], np.int32),
        target=np.array(targets, np.int32),
        actions=np.array([[action in mask for action in vocabulary.actions] for mask in masks]),
        num_steps=np.int32(len(plan.steps)),
        episode_limit=np.int32(episode_limit),
    )


def blank_plan(vocabulary: Vocabulary) -> PlanArrays:
    """Return a plan of zeros with the shapes of every plan, to compile before a plan exists."""
    codes = np.zeros((MAX_STEPS, NUM_INSTRUCTIONS), np.int32)
    table = Table(codes, codes, codes, codes, codes.astype(np.float32))
    zeros = np.zeros(MAX_STEPS, np.int32)
    return PlanArrays(
        done=table,
        reward=table,
        expert=zeros,
        count=np.ones(MAX_STEPS, np.float32),
        progress=zeros,
        target=zeros - 1,
        actions=np.ones((MAX_STEPS, len(vocabulary.actions)), bool),
        num_steps=np.int32(1),
        episode_limit=np.int32(2),
    )


def judge(
    adapter: Adapter, plan: PlanArrays, step: jax.Array, now: jax.Array, prev: jax.Array, start: jax.Array
) -> StepOutcome:
    """Evaluate the current steps' programs on a transition.

    Args:
        step: i32[B] current plan step.
        now, prev, start: f32[B, F] base fluents after the transition, before it, and at the start of the step.
    """
    layout = registers_of(adapter.vocabulary)
    registers = fill(jnp, now, prev, start, plan.count[step], layout)
    return StepOutcome(
        reward=evaluate(plan.reward, step, registers),
        is_done=evaluate(plan.done, step, registers) > 0.5,
    )


def step_features(
    adapter: Adapter, plan: PlanArrays, step: jax.Array, obs: jax.Array, state: Any, now: jax.Array, start: jax.Array
) -> jax.Array:
    """Return an expert's inputs besides the environment's observation: f32[B, 9].

    They are n, progress and remaining of the current step (each divided by 10), then the six target features. Nothing
    depends on the step's position in the plan, the local index or the number of experts, so an expert's inputs mean the
    same in every run.
    """
    count = plan.count[step]
    change = jnp.take_along_axis(now - start, plan.progress[step][:, None], axis=1)[:, 0]
    progress = jnp.clip(change, 0.0, count)
    counts = jnp.stack([count, progress, count - progress], axis=-1) / 10
    sight = jax.vmap(adapter.sight)(obs, state, plan.target[step])
    return jnp.concatenate([counts, sight], axis=-1)
