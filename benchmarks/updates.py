"""Variants of the update compared by what they learn per frame and per CPU second: a table, a row for each variant.

    python benchmarks/updates.py --home .flowrl --skill collect_coal --frames 800000 --seeds 0 1 \
        --variant "" --variant gae_lambda=0.95 --variant like=collect_stone

Each row trains the skill's plan from the home's experts (the skill's own is new) with the knowledge base's settings and
the variant's: fields of `training`; `late.FIELD` for the second half of the budget alone (step size, discount, lambda,
clip and weights); `like`, a learned skill whose expert the new one begins as. All rows of a seed use the same random
streams, in training and in the evaluations: 512 episodes at each quarter of the budget. CPU seconds are those of
training alone, without compilation and evaluation.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from failures import failures, show
from homes import arrays, fields, heads, views

from flowrl_core.compiled.cache import compiled_learner
from flowrl_core.envs.automaton import PlanArrays
from flowrl_core.learning.evaluation import evaluate
from flowrl_core.learning.learner import Learner, hyperparameters, training_mode
from flowrl_core.learning.ppo import Hyperparameters
from flowrl_core.learning.schedule import annealed, shaping_weight
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.learning.success import empty_window
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.randomness import jax_stream, numpy_stream
from flowrl_core.skills.experts import stack_experts
from flowrl_core.skills.knowledge import Knowledge, load_knowledge
from flowrl_core.skills.model import MAX_STEPS
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.layout import Home

EVALUATIONS = 4


def train(
    learner: Learner,
    params: Any,
    plan: PlanArrays,
    training: TrainingSpec,
    late: Mapping[str, Any],
    seed: int,
    episodes: int,
) -> tuple[list[float], list[float], Any]:
    """Return the successes at each part of the budget, the CPU seconds of training up to there, and the parameters."""
    after = training.model_copy(update=late)
    num_steps, per_update = int(plan.num_steps), training.num_envs * training.rollout_length
    num_updates = training.frames // per_update
    state = learner.init(params, jax_stream(seed, "worlds"), jax_stream(seed, "train"), training.world_uses)
    window, spent, successes, seconds = empty_window(MAX_STEPS), 0.0, [], []
    ends = {num_updates * part // EVALUATIONS for part in range(1, EVALUATIONS + 1)}
    for update in range(1, num_updates + 1):
        began = time.process_time()
        frames = (update - 1) * per_update
        mode = training_mode(training.snapshot_fraction, window.failing(num_steps), shaping_weight(training, frames))
        hyper = hyperparameters(annealed(training if 2 * update <= num_updates else after, frames))
        state, stats, parts = learner.step(state, plan, hyper, mode, training.world_uses)
        window.add(np.asarray(stats.attempts), np.asarray(stats.successes), int(stats.episodes))
        jax.block_until_ready(parts)
        spent += time.process_time() - began
        if update in ends:
            successes.append(evaluate(learner, state.params, plan, episodes, jax_stream(seed, "look", update)).success)
            seconds.append(spent)
    return successes, seconds, state.params


def row(home: Home, knowledge: Knowledge, text: str, args: argparse.Namespace, seed: int) -> None:
    """Train a variant with a seed and print its row, and what its failed episodes died of if that is asked for."""
    variant = fields(text, also={"like", *(f"late.{name}" for name in Hyperparameters._fields)})
    skill, known, canonical = args.skill, heads(home), views(home)
    late = {name.removeprefix("late."): value for name, value in variant.items() if name.startswith("late.")}
    changed = {name: value for name, value in variant.items() if name in TrainingSpec.model_fields}
    settings = knowledge.settings(skill)["training"] | {"frames": args.frames} | changed
    training = TrainingSpec.model_validate(settings)
    plan = dataclasses.replace(make_plan(knowledge, skill, learned=known), guards=tuple(args.guards))
    shapes = shapes_of(knowledge.env, training, max(args.room, len(plan.skills)))
    learner = compiled_learner(home.cache, shapes)
    sizes = (learner.observation_size, shapes.width, learner.num_actions)
    new = known[variant["like"]] if "like" in variant else initial_params(numpy_stream(seed, "expert"), *sizes)
    sees = variant["like"] in canonical if "like" in variant else training.canonical_view
    canonical = canonical - {skill} | ({skill} if sees else set())
    params = stack_experts([new if name == skill else known[name] for name in plan.skills], shapes.num_experts)
    lowered = arrays(knowledge, plan, training, canonical)
    successes, seconds, params = train(learner, params, lowered, training, late, seed, args.episodes)
    shown = " | ".join(f"{success:.3f}" for success in successes)
    print(f"| {text or 'default'} | {seed} | {shown} | {seconds[-1]:.0f} |", flush=True)
    if args.failures:
        show(plan, *failures(learner, params, lowered, args.episodes, seed), args.episodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".flowrl"))
    parser.add_argument("--skill", required=True)
    parser.add_argument("--frames", type=int, default=800_000)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--guards", nargs="*", default=[], help="learned skills that guard the plan")
    parser.add_argument("--variant", action="append", help="FIELD=VALUE,FIELD=VALUE; empty: the default")
    parser.add_argument("--failures", action="store_true", help="say of what episodes fail at the end")
    parser.add_argument("--room", type=int, default=8, help="minimum number of experts, to share one compilation")
    args = parser.parse_args()
    home, knowledge = Home(args.home), load_knowledge("craftax-classic")
    parts = [args.frames * part // EVALUATIONS for part in range(1, EVALUATIONS + 1)]
    print(f"| {args.skill} | seed | {' | '.join(f'{frames / 1e6:.2f}M' for frames in parts)} | CPU seconds |")
    print("|" + "---|" * (len(parts) + 3))
    for variant in args.variant or [""]:
        for seed in args.seeds:
            row(home, knowledge, variant, args, seed)


if __name__ == "__main__":
    main()
