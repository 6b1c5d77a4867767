"""Frames and CPU seconds until success is proven: the lower bound of 512 fresh episodes reaches the threshold.

ours: the skills that a stone pickaxe needs, one after another, by the stages that `flowrl campaign` runs.
masked: the same, with each skill limited to the actions that its definition allows (`action_masks`).
original: the protocol of github.com/renos/flow-rl in our harness: the whole plan from scratch in one run, skill
boundaries terminal, no entry snapshots, no target features, no view of our own (canonical, compass), no action masks,
no shaping, nothing that a step must keep and no stranded episodes; other hyperparameters as in ours.
plain: PPO with one network on the game's own reward, in our harness.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from variants import game_learner, warm_up

from flowrl_core.compiled.cache import compiled_learner
from flowrl_core.envs.automaton import PlanArrays, lower_plan
from flowrl_core.learning.evaluation import evaluate as play
from flowrl_core.learning.learner import Learner, hyperparameters, training_mode
from flowrl_core.learning.rollout import RolloutStats
from flowrl_core.learning.schedule import look_level
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.learning.success import empty_window
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.programs.model import Program
from flowrl_core.randomness import jax_stream, numpy_stream
from flowrl_core.skills.experts import stack_experts
from flowrl_core.skills.knowledge import Knowledge, load_knowledge, shipped
from flowrl_core.skills.model import MAX_STEPS, Linear, Plan, Skill, Step
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.process import process
from flowrl_core.stages.skill.train import train
from flowrl_core.statistics import wilson_lower
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

TARGET = "make_stone_pickaxe"
OTHERS = ("make_wood_sword", "collect_sapling", "place_furnace")
"""The demo's other targets."""
STOP = 0.8
"""End-to-end success in one rollout at which the original's training stops."""
NEAR = 0.85
"""Smoothed training success from which the original is evaluated; it overestimates the success in fresh episodes."""
EVERY = 8
"""Updates between two evaluations of the original, as between two looks of our stages."""


@dataclass(frozen=True)
class Row:
    """One protocol with one seed.

    Attributes:
        frames: until the bound reached the threshold, NaN if it did not.
        cpu_seconds, look_cpu_seconds: of training, and of evaluation.
        success: in the last evaluation.
        note: remarks.
    """

    protocol: str
    seed: int
    frames: float
    cpu_seconds: float
    look_cpu_seconds: float
    success: float
    note: str = ""


class Stopwatch:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.seconds = {"train": 0.0, "look": 0.0}

    def run(self, name: str, function: Any, *args: Any, **options: Any) -> Any:
        """Return the function's result, and add its CPU seconds under the name."""
        began = time.process_time()
        try:
            return function(*args, **options)
        finally:
            self.seconds[name] += time.process_time() - began


# Ours


def ours(root: Path, spec: CampaignSpec, knowledge: Knowledge, skills: Sequence[str]) -> list[Row]:
    """Return a row for each skill, learned in a fresh home below `root`, and one for their sum."""
    home = Home(root)
    rows: list[Row] = []
    with Registry.open(home) as registry:
        registry.campaigns.record(spec, knowledge.skills)
    for skill in skills:
        rows.append(_learn(home, spec, knowledge, skill))
        print(f"  {rows[-1].protocol} {rows[-1].frames:.0f} frames, {rows[-1].note}", file=sys.stderr, flush=True)
        if math.isnan(rows[-1].frames):
            break
    return rows


def _learn(home: Home, spec: CampaignSpec, knowledge: Knowledge, skill: str) -> Row:
    own = {name: dict(getattr(knowledge, name).get(skill, {})) for name in ("training", "evaluation")}
    config, watch = resolve(skill, spec, **own), Stopwatch()
    with Registry.open(home) as registry:
        attempt = registry.skill_runs.begin(spec.campaign, registry.skills.get(spec.campaign, skill).identity)
    run, looks = attempt.run, []
    watch.run("look", prepare, home, run, config)  # it measures the heads
    while verdict(home, run) is None:
        watch.run("train", train, home, run, should_stop=lambda: False, on_update=lambda report: None)
        look = watch.run("look", evaluate, home, run)
        looks.append(f"{look.successes / look.episodes:.3f} at {look.frames}")
    outcome = watch.run("train", process, home, run)
    with Registry.open(home) as registry:
        registry.attempts.end(attempt.id, "verdict")
    return Row(
        protocol=skill,
        seed=spec.training.seed,
        frames=outcome.run_frames if outcome.verdict == "learned" else math.nan,
        cpu_seconds=watch.seconds["train"],
        look_cpu_seconds=watch.seconds["look"],
        success=outcome.success,
        note="looks " + ", ".join(looks),
    )


def total(name: str, rows: Sequence[Row]) -> Row:
    """Return the sum of the skills' rows."""
    return Row(
        protocol=name,
        seed=rows[0].seed,
        frames=sum(row.frames for row in rows),
        cpu_seconds=sum(row.cpu_seconds for row in rows),
        look_cpu_seconds=sum(row.look_cpu_seconds for row in rows),
        success=rows[-1].success,
    )


# One run in our harness, without stages


@dataclass
class Training:
    """A plan trained from scratch in one run.

    Attributes:
        frames: environment steps so far.
        window: the smoothed training success, as the stages keep it.
    """

    learner: Learner
    plan: PlanArrays
    training: TrainingSpec
    evaluation: EvaluationSpec
    watch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        num_experts, rng = int(np.max(self.plan.expert)) + 1, numpy_stream(self.training.seed, "experts")
        sizes = (self.learner.observation_size, self.learner.shapes.width, self.learner.num_actions)
        params = stack_experts(
            [initial_params(rng, *sizes) for _ in range(num_experts)], self.learner.shapes.num_experts
        )
        worlds, key = (jax_stream(self.training.seed, name) for name in ("worlds", "train"))
        self._state = self.learner.init(params, worlds, key, self.training.world_uses)
        self._hyper = hyperparameters(self.training)
        self._looks = 0
        self.frames = 0
        self.window = empty_window(MAX_STEPS)

    def step(self) -> RolloutStats:
        """Run one rollout and one update."""
        return self.watch.run("train", self._step)

    def _step(self) -> RolloutStats:
        mode = training_mode(self.training.snapshot_fraction, self.window.failing(int(self.plan.num_steps)))
        uses = self.training.world_uses
        self._state, stats, _ = self.learner.step(self._state, self.plan, self._hyper, mode, uses)
        self.window.add(np.asarray(stats.attempts), np.asarray(stats.successes), int(stats.episodes))
        self.frames += self.learner.shapes.num_envs * self.learner.shapes.rollout_length
        return stats

    def measure(self) -> tuple[float, float]:
        """Return the success in fresh episodes and its lower bound, as in a look of the stages."""
        self._looks += 1
        key = jax_stream(self.training.seed, "look", self._looks)
        episodes = self.evaluation.episodes
        result = self.watch.run("look", play, self.learner, self._state.params, self.plan, episodes, key)
        return result.success, wilson_lower(result.successes, result.episodes, look_level(self.evaluation))

    def success(self) -> float:
        """Return the smoothed training success; NaN until there are enough episodes."""
        return self.window.success(int(self.plan.num_steps), self.evaluation.min_episodes)

    def row(self, protocol: str, frames: float, success: float, note: str) -> Row:
        """Return the row of this run."""
        spent = self.watch.seconds
        return Row(protocol, self.training.seed, frames, spent["train"], spent["look"], success, note)


def original(cache: Path, seed: int, knowledge: Knowledge, cap: int) -> Row:
    """Run the original's protocol until the bound reaches the threshold and its stop rule holds, or until the cap."""
    training = TrainingSpec(seed=seed, credit="terminal", snapshot_fraction=0.0, shaping=0.0)
    plan, skills = make_plan(knowledge, TARGET), _without_targets(knowledge.skills)
    arrays = lower_plan(
        plan,
        skills,
        {name: number for number, name in enumerate(plan.skills)},
        knowledge.vocabulary,
        episode_limit=training.episode_limit,
    )
    arrays = dataclasses.replace(arrays, keep=np.zeros_like(arrays.keep), floor=np.zeros_like(arrays.floor))
    learner = compiled_learner(cache, shapes_of(knowledge.env, training, len(plan.skills)))
    warm_up(learner)
    run = Training(learner, arrays, training, EvaluationSpec())
    stopped, reached, success, looked = "", math.nan, math.nan, 0
    while run.frames < cap and not (stopped and reached == reached):
        stats = run.step()
        if not stopped and rollout_success(stats, len(plan.steps)) >= STOP:
            success, bound = run.measure()
            stopped = f"its rule stops at {run.frames} frames with success {success:.3f} (bound {bound:.3f})"
        is_near = run.success() >= NEAR and run.window.num_updates - looked >= EVERY
        if is_near and math.isnan(reached):
            (success, bound), looked = run.measure(), run.window.num_updates
            reached = run.frames if bound >= run.evaluation.threshold else math.nan
    return run.row("original", reached, success, stopped or "its rule did not stop it")


def rollout_success(stats: RolloutStats, num_steps: int) -> float:
    """Return the product over the steps of successes / attempts in this rollout alone; 0 if one was not attempted."""
    attempts, successes = np.asarray(stats.attempts)[:num_steps], np.asarray(stats.successes)[:num_steps]
    return float(np.prod(successes / np.maximum(attempts, 1)))


def _without_targets(skills: Mapping[str, Skill]) -> dict[str, Skill]:
    return {name: dataclasses.replace(skill, target=None) for name, skill in skills.items()}


def plain(learner: Learner, seed: int, knowledge: Knowledge, cap: int, every: int) -> Row:
    """Run PPO on the game's own reward; an episode ends with a stone pickaxe, death or the step limit."""
    training = TrainingSpec(seed=seed, snapshot_fraction=0.0, shaping=0.0, max_experts=1)
    program = Program(f"ach.{TARGET}", f"1 if new_ach.{TARGET} else 0")
    skill = Skill("play", "", program, gain={f"ach.{TARGET}": Linear(0, 1)})
    arrays = lower_plan(
        Plan("play", (Step("play", 1),)),
        {"play": skill},
        {"play": 0},
        knowledge.vocabulary,
        episode_limit=training.episode_limit,
    )
    run = Training(learner, arrays, training, EvaluationSpec())
    reached, success = math.nan, math.nan
    measured: list[str] = []
    while run.frames < cap and math.isnan(reached):
        run.step()
        if run.frames // every > len(measured) or run.frames >= cap:
            success, bound = run.measure()
            measured.append(f"{success:.3f}")
            reached = run.frames if bound >= run.evaluation.threshold else math.nan
    return run.row("plain", reached, success, f"success every {every} frames: {' '.join(measured)}")


def plain_learner() -> Learner:
    """Return the compiled learner of `plain`."""
    return game_learner(shapes_of("craftax-classic", TrainingSpec(max_experts=1), 1))


# All protocols


@dataclass(frozen=True)
class Plans:
    """The protocols' settings.

    Attributes:
        training, evaluation: fields that ours sets; overrides: SKILL.FIELD=VALUE.
        original_cap, plain_cap: maximum frames; plain_every: frames between evaluations.
    """

    protocols: tuple[str, ...]
    targets: tuple[str, ...]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    overrides: tuple[str, ...]
    original_cap: int = 600_000
    plain_cap: int = 1_000_000
    plain_every: int = 200_000


def compare(plans: Plans, seeds: Sequence[int], cache: Path, root: Path) -> Iterator[Row]:
    """Yield the rows of every protocol and seed, as they are measured."""
    knowledge = load_knowledge(shipped("craftax-classic"))
    learner = plain_learner() if "plain" in plans.protocols else None
    for seed in seeds:
        for name, masks in (("ours", {}), ("masked", {"action_masks": True})):
            if name in plans.protocols:
                fields = {**plans.training, **masks, "seed": seed}
                yield from _ours(name, plans, fields, knowledge, cache, root / f"{name}-{seed}")
        if "original" in plans.protocols:
            yield original(cache, seed, knowledge, plans.original_cap)
        if learner is not None:
            yield plain(learner, seed, knowledge, plans.plain_cap, plans.plain_every)


def _ours(
    name: str, plans: Plans, training: Mapping[str, Any], knowledge: Knowledge, cache: Path, root: Path
) -> Iterator[Row]:
    spec = CampaignSpec(
        targets=list(plans.targets),
        training=TrainingSpec(**training),
        evaluation=EvaluationSpec(**plans.evaluation),
        overrides=list(plans.overrides),
    )
    warm_up(compiled_learner(cache, shapes_of(knowledge.env, spec.training, 1)))
    root.mkdir(parents=True)
    os.symlink(cache.resolve(), root / "cache")
    needed = list(dict.fromkeys(skill for target in plans.targets for skill in make_plan(knowledge, target).skills))
    rows = [dataclasses.replace(row, protocol=f"{name}/{row.protocol}") for row in ours(root, spec, knowledge, needed)]
    yield from rows
    first = make_plan(knowledge, plans.targets[0]).skills
    yield total(name, rows[: len(first)])
    if len(needed) > len(first):
        yield total(f"{name}, all {len(needed)} skills", rows)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table: each seed, then the medians and their ratio to the original's protocol."""
    yield f"{'protocol':>26} {'seed':>6} {'frames':>9} {'CPU s':>7} {'looks CPU s':>12} {'success':>8}  note"
    for row in rows:
        yield (
            f"{row.protocol:>26} {row.seed:>6} {row.frames:>9.0f} {row.cpu_seconds:>7.1f} "
            f"{row.look_cpu_seconds:>12.1f} {row.success:>8.3f}  {row.note}"
        )
    names = list(dict.fromkeys(row.protocol for row in rows if "/" not in row.protocol))
    reference = median_frames(rows, "original")
    for name in names:
        frames = median_frames(rows, name)
        seconds = np.median([row.cpu_seconds for row in rows if row.protocol == name])
        yield (
            f"{name:>26} {'median':>6} {frames:>9.0f} {seconds:>7.1f}  frames over the original's: "
            f"{frames / reference:.2f}"
        )


def median_frames(rows: Sequence[Row], protocol: str) -> float:
    """Return the median over the seeds; a run that did not reach the threshold counts as infinite. NaN without runs."""
    frames = [math.inf if math.isnan(row.frames) else row.frames for row in rows if row.protocol == protocol]
    return float(np.median(frames)) if frames else math.nan
