"""The cost of one frame of training: processor time of the rollout and of the update, and the memory of the process;
and how long the process took until its first update (with `--cache`, from the second time on, without compilation).

The functions are those of a run, compiled for the given shapes. `--experts` of them act in turn on a plan of 24 steps:
a step is done whenever random play gets closer to a tree, so that all of them act in every rollout.

    python benchmarks/learner.py [--json] [--num-envs N] [--rollout-length T] [--width W] [--experts K] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowrl_core.compiled.cache import compiled_learner
from flowrl_core.envs.automaton import PlanArrays, blank_plan
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.learning.learner import Learner, LearnerState, hyperparameters, training_mode
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.programs.language import check_done, lower
from flowrl_core.programs.tables import stack
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.experts import stack_experts
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.stages.timing import mark, marks


def plan_of(num_experts: int) -> PlanArrays:
    """Return a plan of 24 steps in which the experts take turns."""
    plan = blank_plan(CRAFTAX_CLASSIC)
    num_steps = len(plan.count)
    table = lower(check_done("closer.tree > 0", CRAFTAX_CLASSIC), CRAFTAX_CLASSIC)
    return replace(
        plan,
        done=stack([table] * num_steps),
        expert=np.arange(num_steps, dtype=np.int32) % num_experts,
        num_steps=np.int32(num_steps),
        episode_limit=np.int32(300),
    )


def measure(learner: Learner, num_experts: int, training: TrainingSpec, rounds: int) -> dict[str, float]:
    """Return the median CPU microseconds per frame of each function, and of whole steps."""
    shapes, plan, hyper = learner.shapes, plan_of(num_experts), hyperparameters(training)
    sizes = (learner.observation_size, shapes.width, learner.num_actions)
    rng = np.random.default_rng(0)
    params = stack_experts([initial_params(rng, *sizes) for _ in range(num_experts)], shapes.num_experts)
    state = learner.init(params, jax_stream(0, "worlds"), jax_stream(0, "train"), training.world_uses)
    frames = shapes.num_envs * shapes.rollout_length
    seconds: dict[str, list[float]] = {"renew": [], "play": [], "improve": []}
    clocks: dict[str, Any] = {name: _Timed(getattr(learner.functions, name), found) for name, found in seconds.items()}
    timed = replace(learner, functions=replace(learner.functions, **clocks))
    for _ in range(rounds + 1):  # the first one loads the functions
        state = _step(timed, state, plan, hyper, training)
        mark("first_update")
    return {name: statistics.median(found[1:]) / frames * 1e6 for name, found in seconds.items()}


def _step(learner: Learner, state: LearnerState, plan: PlanArrays, hyper: Any, training: TrainingSpec) -> LearnerState:
    return learner.step(state, plan, hyper, training_mode(training.snapshot_fraction), training.world_uses)[0]


class _Timed:
    """A function that records the processor time of its calls."""

    def __init__(self, function: Callable[..., Any], seconds: list[float]) -> None:
        self._function, self._seconds = function, seconds

    def __call__(self, *args: Any) -> Any:
        jax.block_until_ready(args)
        start = time.process_time()
        result = jax.block_until_ready(self._function(*args))
        self._seconds.append(time.process_time() - start)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--rollout-length", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--experts", type=int, nargs="+", default=[1, 5], help="numbers of experts that act")
    parser.add_argument("--rounds", type=int, default=15, help="steps that are timed for each row")
    parser.add_argument("--cache", type=Path, help="where compiled functions are kept (default: nowhere)")
    given = parser.parse_args()
    training = TrainingSpec(num_envs=given.num_envs, rollout_length=given.rollout_length, width=given.width)
    with tempfile.TemporaryDirectory() as temporary:
        shapes = shapes_of("craftax-classic", training, max(given.experts))
        learner = compiled_learner(given.cache or Path(temporary), shapes)
        rows = [{"experts": number, **measure(learner, number, training, given.rounds)} for number in given.experts]
    noted = marks()
    start = noted["first_update"] - noted["process_started"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if given.json:
        print(json.dumps({"shapes": vars(shapes), "rows": rows, "start_seconds": start, "peak_rss_mib": peak}))
        return
    print(f"{shapes.num_envs} environments x {shapes.rollout_length} steps, width {shapes.width}: CPU us per frame")
    print(f"{'experts':>7}  {'worlds':>6}  {'rollout':>7}  {'update':>6}  {'all':>6}")
    for row in rows:
        parts = [row[name] for name in ("renew", "play", "improve")]
        print(f"{row['experts']:7}  {parts[0]:6.1f}  {parts[1]:7.1f}  {parts[2]:6.1f}  {sum(parts):6.1f}")
    print(f"process start -> first finished update {start:.1f} s")
    print(f"peak RSS {peak:,.0f} MiB{'' if given.cache else ', compiling in this process'}")


if __name__ == "__main__":
    main()
