"""Variants of the update compared by what they learn per frame and per CPU second: a table, a row for each variant.

    python benchmarks/updates.py --home .flowrl --skill collect_coal --frames 800000 --seeds 0 1 \
        --variant "" --variant gae_lambda=0.95 --variant like=collect_stone

Each row trains the skill's plan from the home's experts (the skill's own is new) with the knowledge base's settings and
the variant's: fields of `training`; `late.FIELD` for the second half alone; `like`, a learned skill
whose expert the new one begins as; `reward_scale`, a factor of all rewards. With another `width` the home's experts are
widened without a change of what they do. All rows of a seed use the same random streams, in training and in the
evaluations: 512 episodes at each quarter of the budget. CPU seconds are those of training alone, without compilation
and evaluation.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from failures import failures, show
from homes import arrays, fields, heads, views

from flowrl_core.compiled.cache import compiled_learner
from flowrl_core.envs.automaton import NUM_STEP_FEATURES, PlanArrays
from flowrl_core.learning.evaluation import evaluate
from flowrl_core.learning.learner import hyperparameters, training_mode
from flowrl_core.learning.ppo import Hyperparameters
from flowrl_core.learning.schedule import annealed, shaping_weight
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.learning.success import empty_window
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.programs.model import Program
from flowrl_core.randomness import jax_stream, numpy_stream
from flowrl_core.skills.experts import stack_experts
from flowrl_core.skills.knowledge import Knowledge, load_knowledge
from flowrl_core.skills.model import MAX_STEPS
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.layout import Home

ENV = "craftax-classic"
EVALUATIONS, EPISODES = 4, 512
LATE = {*Hyperparameters._fields, "num_envs", "rollout_length", "minibatch_size", "epochs", "snapshot_fraction"}
LATE &= TrainingSpec.model_fields.keys()
"""What may differ in the second half of a budget: what the update and the rollout read, not the plan."""


def train(
    home: Home, params: Any, plan: PlanArrays, early: TrainingSpec, late: TrainingSpec, room: int, seed: int
) -> tuple[list[float], list[float], Any]:
    """Return the successes at each part of the budget, the CPU seconds of training up to there, and the parameters.

    Args:
        early, late: the settings of the first and of the second half of the budget.
        room: minimum number of experts.
    """
    learners = [compiled_learner(home.cache, shapes_of(ENV, each, room)) for each in (early, late)]
    learner, training, num_steps = learners[0], early, int(plan.num_steps)
    state = learner.init(params, jax_stream(seed, "worlds"), jax_stream(seed, "train"), early.world_uses)
    window, spent, frames, successes, seconds = empty_window(MAX_STEPS), 0.0, 0, [], []
    for part in range(1, EVALUATIONS + 1):
        while frames < early.frames * part // EVALUATIONS:
            if training is early and 2 * frames >= early.frames:
                learner, training, moments = learners[1], late, state.optimizer_state
                if learner.shapes != learners[0].shapes:
                    keys = jax_stream(seed, "late worlds"), jax_stream(seed, "late train")
                    state = learner.init(state.params, *keys, late.world_uses)
                    state = dataclasses.replace(state, optimizer_state=moments)
            began = time.process_time()
            weights = window.failing(num_steps), shaping_weight(early, frames)
            mode = training_mode(training.snapshot_fraction, *weights)
            hyper = hyperparameters(annealed(training, frames))
            state, stats, parts = learner.step(state, plan, hyper, mode, training.world_uses)
            window.add(np.asarray(stats.attempts), np.asarray(stats.successes), int(stats.episodes))
            jax.block_until_ready(parts)
            spent += time.process_time() - began
            frames += training.num_envs * training.rollout_length
        key = jax_stream(seed, "look", part)
        successes.append(evaluate(learners[0], state.params, plan, EPISODES, key).success)
        seconds.append(spent)
    return successes, seconds, state.params


def row(home: Home, knowledge: Knowledge, text: str, args: argparse.Namespace, seed: int) -> None:
    """Train a variant with a seed and print its row, and what its failed episodes died of if that is asked for."""
    variant = fields(text, also={"like", "reward_scale", *(f"late.{name}" for name in LATE)})
    skill, known, seen = args.skill, heads(home), views(home)
    late = {name.removeprefix("late."): value for name, value in variant.items() if name.startswith("late.")}
    changed = {name: value for name, value in variant.items() if name in TrainingSpec.model_fields}
    settings = knowledge.settings(skill)["training"] | {"frames": args.frames} | changed
    training = TrainingSpec.model_validate(settings)
    plan = dataclasses.replace(make_plan(knowledge, skill, learned=known), guards=tuple(args.guards))
    room, rng = max(args.room, len(plan.skills)), numpy_stream(seed, "expert")
    words = knowledge.vocabulary
    sizes = (words.observation_size + NUM_STEP_FEATURES, training.width, len(words.actions))
    new = known[variant["like"]] if "like" in variant else initial_params(rng, *sizes)
    seen |= {skill: seen[variant["like"]] if "like" in variant else training.view}
    experts = [widened(new if name == skill else known[name], rng, *sizes) for name in plan.skills]
    num_experts = shapes_of(ENV, training, room).num_experts
    lowered = arrays(rescaled(knowledge, variant.get("reward_scale", 1)), plan, training, seen)
    after = TrainingSpec.model_validate(training.model_dump() | late)
    params = stack_experts(experts, num_experts)
    successes, seconds, params = train(home, params, lowered, training, after, room, seed)
    shown = " | ".join(f"{success:.3f}" for success in successes)
    print(f"| {text or 'default'} | {seed} | {shown} | {seconds[-1]:.0f} |", flush=True)
    if args.failures:
        learner = compiled_learner(home.cache, shapes_of(ENV, training, room))
        show(plan, *failures(learner, params, lowered, EPISODES, seed), EPISODES)


def rescaled(knowledge: Knowledge, scale: float) -> Knowledge:
    """Return the knowledge with every skill's reward multiplied, as reward normalisation does once it has settled."""
    skills = {
        name: dataclasses.replace(skill, program=Program(skill.program.done, f"{scale} * ({skill.program.reward})"))
        for name, skill in knowledge.skills.items()
    }
    return knowledge if scale == 1 else dataclasses.replace(knowledge, skills=skills)


def widened(expert: Any, rng: np.random.Generator, num_inputs: int, width: int, num_actions: int) -> Any:
    """Return an expert with the same outputs and hidden layers of this width (Chen et al. 2016, arXiv:1511.05641).

    What its new units compute is random, and read by nothing yet.
    """
    old = expert["params"]["logits"]["kernel"].shape[0]
    if old == width:
        return expert
    wide = initial_params(rng, num_inputs, width, num_actions)["params"]
    for name, layer in wide.items():
        narrow = expert["params"][name]
        halves = 2 if name == "first" else 1  # actor's and critic's units
        rows = slice(None) if name == "first" else slice(old)
        if name != "first":
            layer["kernel"][old:] = 0
        for half in range(halves):
            units = narrow["bias"].shape[0] // halves
            start = half * (layer["bias"].shape[0] // halves)
            source, target = slice(half * units, (half + 1) * units), slice(start, start + units)
            layer["kernel"][rows, target] = narrow["kernel"][:, source]
            layer["bias"][target] = narrow["bias"][source]
    return {"params": wide}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".flowrl"))
    parser.add_argument("--skill", required=True)
    parser.add_argument("--frames", type=int, default=800_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--guards", nargs="*", default=[], help="learned skills that guard the plan")
    parser.add_argument("--variant", action="append", help="FIELD=VALUE,FIELD=VALUE; empty: the default")
    parser.add_argument("--failures", action="store_true", help="say of what episodes fail at the end")
    parser.add_argument("--room", type=int, default=8, help="minimum number of experts, to share one compilation")
    args = parser.parse_args()
    home, knowledge = Home(args.home), load_knowledge(ENV)
    parts = [args.frames * part // EVALUATIONS for part in range(1, EVALUATIONS + 1)]
    print(f"| {args.skill} | seed | {' | '.join(f'{frames / 1e6:.2f}M' for frames in parts)} | CPU seconds |")
    print("|" + "---|" * (len(parts) + 3))
    for variant in args.variant or [""]:
        for seed in args.seeds:
            row(home, knowledge, variant, args, seed)


if __name__ == "__main__":
    main()
