"""The plan as arrays, and the automaton that runs it inside the jitted environment.

A pointer to the current step advances when the step's `done` program is true and the step has kept what the later
steps need (`symbolic.kept`). The episode ends when the last step is done, the player dies, time runs out, or the player
is stranded: too little is left of something that the plan needs and the current skill does not gain. Everything that
distinguishes skills is data, so a new plan compiles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import NUM_TARGET_FEATURES, Adapter
from flowrl_core.envs.evaluator import evaluate
from flowrl_core.envs.guards import GuardArrays, blank_guards, bonus, lower_guards
from flowrl_core.errors import PlanError
from flowrl_core.programs.language import check_done, check_reward, lower
from flowrl_core.programs.registers import fill, registers_of
from flowrl_core.programs.tables import Table, stack, zeros
from flowrl_core.skills.model import MAX_STEPS, Plan, Skill
from flowrl_core.skills.symbolic import kept
from flowrl_core.trees import tree_class
from flowrl_core.types import Leaf, View
from flowrl_core.vocabulary.model import Vocabulary

__all__ = [
    "NUM_STEP_FEATURES",
    "StepOutcome",
    "PlanArrays",
    "blank_plan",
    "judge",
    "lower_plan",
    "read_registers",
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
        view: i32[S] what the step's expert sees, the flags of `types.View`.
        actions: bool[S, A] the actions that the step may use.
        is_masked: bool[] whether actions are masked: then those that the environment calls deadly are forbidden too.
        keep: f32[S, F] minimum of each base fluent when the step ends; 0 where there is none.
        floor: f32[S, F] the same, only for counts that the step's skill does not gain: below it, the plan is lost.
        shaping: the environment's shaping as a table, leaves [1, I]; a reward of 0 if it declares none.
        guards: skills that take over by state.
        num_steps: i32[] length of the plan.
        episode_limit: i32[] steps after which an episode fails.
    """

    done: Table
    reward: Table
    expert: Leaf
    count: Leaf
    progress: Leaf
    target: Leaf
    view: Leaf
    actions: Leaf
    is_masked: Leaf
    keep: Leaf
    floor: Leaf
    shaping: Table
    guards: GuardArrays
    num_steps: Leaf
    episode_limit: Leaf


@tree_class
class StepOutcome:
    """The results of one transition.

    Attributes:
        reward: f32[B] of the current step's program; nothing but losses while it says done and something is not kept.
        is_done: bool[B] the step's program is done, and what later steps need is kept.
        is_stranded: bool[B] what later steps need is spent, and the step's skill cannot gain it.
    """

    reward: jax.Array
    is_done: jax.Array
    is_stranded: jax.Array


def lower_plan(
    plan: Plan,
    skills: Mapping[str, Skill],
    experts: Mapping[str, int],
    vocabulary: Vocabulary,
    *,
    episode_limit: int,
    use_masks: bool = False,
    views: Mapping[str, View] = {},
) -> PlanArrays:
    """Return the plan as arrays.

    Args:
        experts: the local expert of each skill of the plan, guards included.
        use_masks: restrict each step to its skill's declared actions and the environment's basic ones.
        views: what the expert of each skill sees; none named: what the player sees.

    Raises:
        PlanError: the plan has more than MAX_STEPS steps or MAX_GUARDS guards, or a guard that declares none.
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
    keep, floor = _kept(plan, skills, vocabulary)
    guards = [skills[name] for name in plan.guards]
    targets = [vocabulary.targets.index(skill.target) if skill.target else -1 for skill in mine]
    return PlanArrays(
        done=stack([lower(check_done(skill.program.done, vocabulary), vocabulary) for skill in mine]),
        reward=stack([lower(check_reward(skill.program.reward, vocabulary), vocabulary) for skill in mine]),
        expert=np.array([experts[step.skill] for step in steps], np.int32),
        count=np.array([step.n for step in steps], np.float32),
        progress=np.array([names.index(skill.progress) for skill in mine], np.int32),
        target=np.array(targets, np.int32),
        view=np.array([views.get(step.skill, View.PLAIN) for step in steps], np.int32),
        actions=_masks(mine, vocabulary, use_masks=use_masks),
        is_masked=np.bool_(use_masks),
        keep=keep,
        floor=floor,
        shaping=_shaping(vocabulary),
        guards=lower_guards(
            plan.guards,
            skills,
            experts,
            _masks(guards, vocabulary, use_masks=use_masks),
            vocabulary,
            views=views,
        ),
        num_steps=np.int32(len(plan.steps)),
        episode_limit=np.int32(episode_limit),
    )


def _masks(skills: Sequence[Skill], vocabulary: Vocabulary, *, use_masks: bool) -> np.ndarray:
    """Return the actions that each skill may use, bool[len(skills), A]; all without masks, or if it declares none."""
    allowed = [
        {*vocabulary.basic_actions, *skill.actions} if use_masks and skill.actions else vocabulary.actions
        for skill in skills
    ]
    masks = [[action in mask for action in vocabulary.actions] for mask in allowed]
    return np.array(masks, bool).reshape(len(skills), len(vocabulary.actions))


def _shaping(vocabulary: Vocabulary) -> Table:
    if not vocabulary.shaping:
        return zeros(1)
    return stack([lower(check_reward(vocabulary.shaping, vocabulary), vocabulary)], 1)


def _kept(plan: Plan, skills: Mapping[str, Skill], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return `PlanArrays.keep` and `PlanArrays.floor`."""
    fluents = {fluent.name: fluent for fluent in vocabulary.fluents}
    place = {name: number for number, name in enumerate(fluents)}
    keep = np.zeros((MAX_STEPS, len(fluents)), np.float32)
    floor = keep.copy()
    for number, (step, needed) in enumerate(zip(plan.steps, kept(plan, skills, fluents), strict=True)):
        for name, amount in needed.items():
            keep[number, place[name]] = amount
            if fluents[name].kind == "count" and name not in skills[step.skill].gain:
                floor[number, place[name]] = amount
    return keep, floor


def blank_plan(vocabulary: Vocabulary) -> PlanArrays:
    """Return a plan of zeros with the shapes of every plan, to compile before a plan exists."""
    numbers = np.zeros(MAX_STEPS, np.int32)
    amounts = np.zeros((MAX_STEPS, len(vocabulary.fluents)), np.float32)
    return PlanArrays(
        done=zeros(MAX_STEPS),
        reward=zeros(MAX_STEPS),
        expert=numbers,
        count=np.ones(MAX_STEPS, np.float32),
        progress=numbers,
        target=numbers - 1,
        view=numbers,
        actions=np.ones((MAX_STEPS, len(vocabulary.actions)), bool),
        is_masked=np.bool_(False),
        keep=amounts,
        floor=amounts,
        shaping=zeros(1),
        guards=blank_guards(vocabulary),
        num_steps=np.int32(1),
        episode_limit=np.int32(2),
    )


def judge(
    adapter: Adapter,
    plan: PlanArrays,
    step: jax.Array,
    guard: jax.Array,
    now: jax.Array,
    prev: jax.Array,
    start: jax.Array,
    shaping_weight: jax.Array | float = 0.0,
) -> StepOutcome:
    """Return the results of a transition in each environment's current step.

    Args:
        step: i32[B] current plan step.
        guard: i32[B] guard that acted, or `guards.NONE`.
        now, prev, start: f32[B, F] base fluents after the transition, before it, and at the start of the step.
        shaping_weight: f32[] weight of the environment's shaping and of the guard's own reward.
    """
    registers = read_registers(adapter, plan, step, now, prev, start)
    shaping = evaluate(plan.shaping, jnp.zeros_like(step), registers) + bonus(plan.guards, registers, guard)
    reward = evaluate(plan.reward, step, registers)
    is_said_done = evaluate(plan.done, step, registers) > 0.5
    is_kept = (now >= plan.keep[step]).all(-1)
    # Programs pay for being done and rely on the step's end: a furnace in the wrong place would go on paying.
    reward = jnp.where(is_said_done & ~is_kept, jnp.minimum(reward, 0.0), reward)
    return StepOutcome(
        reward=reward + shaping_weight * shaping,
        is_done=is_said_done & is_kept,
        is_stranded=(now < plan.floor[step]).any(-1),
    )


def read_registers(
    adapter: Adapter, plan: PlanArrays, step: jax.Array, now: jax.Array, prev: jax.Array, start: jax.Array
) -> jax.Array:
    """Return what programs read in each environment's current step, f32[B, R]; arguments as those of `judge`."""
    return fill(jnp, now, prev, start, plan.count[step], registers_of(adapter.vocabulary))


def step_features(
    adapter: Adapter,
    plan: PlanArrays,
    step: jax.Array,
    guard: jax.Array,
    obs: jax.Array,
    state: Any,
    now: jax.Array,
    start: jax.Array,
) -> jax.Array:
    """Return an expert's inputs besides the environment's observation: f32[B, 9].

    They are n, progress and remaining of the current step (each divided by 10), then the six target features. A guard
    has its own target, and n = 1 without progress, as at the start of its own run. Nothing depends on the step's
    position in the plan, the local index or the number of experts, so an expert's inputs mean the same in every run.
    """
    is_guarded = guard >= 0
    count = jnp.where(is_guarded, 1.0, plan.count[step])
    change = jnp.take_along_axis(now - start, plan.progress[step][:, None], axis=1)[:, 0]
    progress = jnp.where(is_guarded, 0.0, jnp.clip(change, 0.0, count))
    counts = jnp.stack([count, progress, count - progress], axis=-1) / 10
    target = jnp.where(is_guarded, jnp.asarray(plan.guards.target)[guard], plan.target[step])
    sight = jax.vmap(adapter.sight)(obs, state, target)
    return jnp.concatenate([counts, sight], axis=-1)
