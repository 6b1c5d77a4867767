"""What the failed episodes of a Craftax-Classic skill die of, with its guards and without them.

    python benchmarks/failures.py --home .flowrl --skill collect_iron

The newest version of each expert plays the skill's plan in 512 fresh worlds, the same ones with and without guards. For
each step of the plan: how many episodes failed in it, and how. For the deaths: what was beside the player one step
before, and which vitals were at 0. Their sum exceeds the number of deaths where a death has several of these.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from homes import arrays, fields, heads, views

from flowrl_core.compiled.cache import compiled_learner
from flowrl_core.envs.automaton import PlanArrays
from flowrl_core.learning.evaluation import played
from flowrl_core.learning.learner import Learner
from flowrl_core.learning.rollout import Trajectory, widen
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.experts import stack_experts
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.model import Plan
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.layout import Home

_CELLS, _CHANNELS = 7 * 9, 21
_LAVA, _ZOMBIE, _SKELETON = 14, 17, 19
_VITALS = {"food": 13, "drink": 14, "energy": 15}
"""Index among the 22 numbers that follow the view in an observation (game's renderer.py, render_craftax_symbolic)."""
_LIGHT, _ASLEEP = 20, 21
_DISTANCE = np.abs(np.arange(7) - 3)[:, None] + np.abs(np.arange(9) - 4)[None]


@dataclass(frozen=True)
class Failure:
    """An episode that did not finish the plan: the step in which it ended, how, when, and signs of why."""

    step: int
    how: str
    time: int
    signs: tuple[str, ...]


def failures(learner: Learner, params: Any, plan: PlanArrays, episodes: int, seed: int) -> tuple[list[Failure], int]:
    """Return the failed episodes of `episodes`, and the number of frames in which a guard acted."""
    quota, guarded, found = episodes // learner.shapes.num_envs, 0, []
    pool = learner.fill(jax_stream(seed, "failures", "worlds"))
    for trajectory in played(learner, params, plan, pool, quota, jax_stream(seed, "failures", "play")):
        counts = np.asarray(trajectory.episode) < quota
        guarded += int(((np.asarray(trajectory.guard) >= 0) & counts).sum())
        failed = counts & np.asarray(trajectory.is_over) & ~np.asarray(trajectory.is_finished)
        inputs = np.asarray(widen(trajectory.inputs))
        found += [_failure(trajectory, inputs[at], at) for at in zip(*np.nonzero(failed), strict=True)]
    return found, guarded


def _failure(trajectory: Trajectory, inputs: np.ndarray, at: tuple[Any, ...]) -> Failure:
    cells = inputs[: _CELLS * _CHANNELS].reshape(7, 9, _CHANNELS) > 0.5
    numbers = inputs[_CELLS * _CHANNELS :]
    how = "died" if trajectory.is_dead[at] else "stranded" if trajectory.is_stranded[at] else "timed out"
    beside = _DISTANCE <= 1
    signs = {
        "zombie beside": cells[beside, _ZOMBIE].any(),
        "skeleton in view": cells[..., _SKELETON].any(),
        "lava beside": cells[beside, _LAVA].any(),
        "asleep": numbers[_ASLEEP] > 0.5,
        "dark": numbers[_LIGHT] < 0.5,
        **{f"no {name}": numbers[place] < 0.05 for name, place in _VITALS.items()},
    }
    seen = tuple(name for name, holds in signs.items() if holds)
    return Failure(int(trajectory.step[at]), how, int(trajectory.time[at]), seen)


def show(plan: Plan, found: list[Failure], guarded: int, episodes: int) -> None:
    print(f"\n{episodes - len(found)} of {episodes} succeed")
    print(f"  guards: {', '.join(plan.guards) or 'none'}; they acted in {guarded} frames")
    for number, step in enumerate(plan.steps):
        here = [failure for failure in found if failure.step == number]
        ways = ", ".join(f"{count} {how}" for how, count in Counter(failure.how for failure in here).items())
        if here:
            low, middle, high = np.quantile([failure.time for failure in here], [0.1, 0.5, 0.9])
            print(f"  {step.skill} x{step.n}: {ways}; at step {low:.0f} / {middle:.0f} / {high:.0f} (10, 50, 90 %)")
    deaths = [failure for failure in found if failure.how == "died"]
    signs = Counter(sign for failure in deaths for sign in failure.signs)
    print(f"  of {len(deaths)} deaths: {', '.join(f'{sign} {count}' for sign, count in signs.most_common())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".flowrl"))
    parser.add_argument("--skill", required=True)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="FIELD=VALUE of training")
    args = parser.parse_args()
    home, knowledge = Home(args.home), load_knowledge("craftax-classic")
    known, seen = heads(home), views(home)
    changed = fields(",".join(args.set))
    training = TrainingSpec.model_validate({**knowledge.settings(args.skill)["training"], **changed})
    plan = make_plan(knowledge, args.skill, learned=known)
    guards = tuple(name for name in knowledge.skill(args.skill).guards if name in known)
    for names in dict.fromkeys([(), guards]):
        guarded_plan = replace(plan, guards=names)
        shapes = shapes_of(knowledge.env, training, max(8, len(guarded_plan.skills)))
        params = stack_experts([known[name] for name in guarded_plan.skills], shapes.num_experts)
        learner = compiled_learner(home.cache, shapes)
        lowered = arrays(knowledge, guarded_plan, training, seen)
        found, guarded = failures(learner, params, lowered, args.episodes, args.seed)
        show(guarded_plan, found, guarded, args.episodes)


if __name__ == "__main__":
    main()
