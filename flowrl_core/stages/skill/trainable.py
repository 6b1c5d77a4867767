"""A skill's run as a `Trainable` of the training loop: PPO updates, the success window, and when a look is due."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowrl_core.learning.forecast import (
    WINDOW_ATTEMPTS,
    WINDOW_EPISODES,
    Forecast,
    empty_curve,
    extended,
    forecast,
    is_hopeless,
    num_points,
)
from flowrl_core.learning.loop import Trainable, UpdateResult
from flowrl_core.learning.schedule import annealed, look_target, look_window, next_action, shaping_weight
from flowrl_core.learning.success import SuccessWindow, empty_window
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import MAX_STEPS
from flowrl_core.stages.skill.context import RunContext
from flowrl_core.stages.timing import mark
from flowrl_core.storage.records.skill_runs import Look

if TYPE_CHECKING:
    from flowrl_core.learning.learner import LearnerState
    from flowrl_core.learning.ppo import Hyperparameters

__all__ = ["RENEWABLE", "LookSchedule", "SkillState", "skill_trainable"]

RENEWABLE = (*(("learner", part) for part in ("playing", "pool", "use", "snapshots")), ("curve",))
"""The parts of a checkpoint that begin anew where an earlier version wrote them otherwise: the environments, whose
episodes then start again, and the curve. Experts, their optimizers, counters and random streams go on."""


@dataclass(frozen=True)
class SkillState:
    """The state that the next update needs, the success of recent ones, and the run's curve (see `forecast`)."""

    learner: LearnerState
    window: SuccessWindow
    curve: np.ndarray


@dataclass(frozen=True)
class LookSchedule:
    """A run's progress in frames and success, and when training pauses for a look.

    Attributes:
        looks: the looks taken before this process began to train.
    """

    context: RunContext
    looks: tuple[Look, ...]

    @property
    def budget(self) -> int:
        """The maximum number of frames of the run."""
        return self.context.config.training.frames

    def frames(self, updates: int) -> int:
        """Environment steps in this many updates."""
        return updates * self.context.config.training.num_envs * self.context.config.training.rollout_length

    def success(self, state: SkillState, update: int) -> float | None:
        """The smoothed training success; None until enough episodes have ended."""
        return _json_number(self._success(state, update))

    def target(self, update: int) -> float:
        """The training success at which the next look is due."""
        frames = self.frames(update)
        num_looks = sum(look.frames < frames for look in self.looks)
        return look_target(num_looks, frames, self.context.config.evaluation)

    def hopeless(self, state: SkillState, update: int) -> Forecast | None:
        """The forecast that ends the run early; None while the run may still reach the threshold."""
        frames, spec = self.frames(update), self.context.config.evaluation
        is_new = num_points(frames, self.budget) > num_points(self.frames(update - 1), self.budget)
        if not spec.stop_hopeless or not is_new:
            return None
        found = forecast(state.curve, frames, self.budget)
        return found if is_hopeless(found, frames, self.budget, spec.threshold) else None

    def is_due(self, state: SkillState, update: int) -> bool:
        """Whether training pauses here, for a look or because the run is over."""
        frames, spec = self.frames(update), self.context.config.evaluation
        if self.looks and frames < self.looks[-1].frames:
            return False  # the evaluated checkpoint is damaged: train it again, with the same random numbers
        success = self._success(state, update)
        is_over = self.hopeless(state, update) is not None
        return next_action(frames, self.budget, success, self.looks, spec, is_hopeless=is_over) != "train"

    def _success(self, state: SkillState, update: int) -> float:
        spec, num_steps = self.context.config.evaluation, len(self.context.plan.steps)
        return state.window.success(num_steps, spec.min_episodes, window=look_window(self.frames(update), spec))


def skill_trainable(context: RunContext, schedule: LookSchedule) -> Trainable[SkillState]:
    """The run's learner: one rollout and one PPO update at a time."""
    from flowrl_core.learning.learner import training_mode
    from flowrl_core.storage.checkpoints import load_tree

    training, num_steps = context.config.training, len(context.plan.steps)
    learner, plan = context.learner(), context.plan_arrays()

    def hyper(update: int, step_scale: float) -> Hyperparameters:
        from flowrl_core.learning.learner import hyperparameters

        now = annealed(training, schedule.frames(update - 1))
        return hyperparameters(now.model_copy(update={"learning_rate": now.learning_rate * step_scale}))

    def init() -> SkillState:
        seed, _ = load_tree(context.directory.seed)
        worlds, key = (jax_stream(context.seed, name) for name in ("worlds", "train"))
        first = learner.init(seed, worlds, key, training.world_uses)
        return SkillState(first, empty_window(MAX_STEPS), empty_curve(num_steps))

    def step(state: SkillState, update: int, step_scale: float) -> UpdateResult[SkillState]:
        mode = training_mode(
            training.snapshot_fraction,
            state.window.failing(len(context.plan.steps)),
            shaping_weight(training, schedule.frames(update - 1)),
        )
        trained, stats, parts = learner.step(state.learner, plan, hyper(update, step_scale), mode, training.world_uses)
        losses = {name: float(value) for name, value in parts._asdict().items()}
        if problem := _problem(losses):
            return UpdateResult(SkillState(trained, state.window, state.curve), {}, problem)
        state.window.add(np.asarray(stats.attempts), np.asarray(stats.successes), int(stats.episodes))
        after = SkillState(trained, state.window, curve(state, update))
        mark("first_update")
        return UpdateResult(after, _metrics(context, schedule, after, update, stats) | losses)

    def curve(state: SkillState, update: int) -> np.ndarray:
        steps = state.window.steps(num_steps, WINDOW_EPISODES, min_attempts=WINDOW_ATTEMPTS)
        return extended(state.curve, steps, schedule.frames(update - 1), schedule.frames(update), schedule.budget)

    def restore(tree: Any) -> SkillState:
        return SkillState(learner.resume(tree["learner"]), SuccessWindow.from_dict(tree["window"]), tree["curve"])

    def facts(state: SkillState, update: int) -> dict[str, Any]:
        end = schedule.hopeless(state, update)
        return {
            "run_frames": schedule.frames(update),
            "routed_frames": np.asarray(state.learner.routed_frames).tolist(),
            "hopeless": asdict(end) if end else None,
        }

    return Trainable(
        init=init,
        step=step,
        tree=lambda state: _tree(state.learner, state.window, state.curve),
        template=lambda: _tree(learner.shape(), empty_window(MAX_STEPS), empty_curve(num_steps)),
        restore=restore,
        facts=facts,
        problem=lambda state: "" if _is_finite(state.learner.params) else "a parameter is not finite",
    )


def _tree(learner: LearnerState, window: SuccessWindow, curve: np.ndarray) -> dict[str, Any]:
    return {"learner": learner, "window": window.as_dict(), "curve": curve}


def _problem(losses: Mapping[str, float]) -> str:
    which = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
    return f"a loss is not finite ({which})" if which else ""


def _metrics(context: RunContext, schedule: LookSchedule, state: SkillState, update: int, stats: Any) -> dict[str, Any]:
    return {
        "run_frames": schedule.frames(update),
        "success": schedule.success(state, update),
        "target": schedule.target(update),
        "steps": [_json_number(x) for x in state.window.steps(len(context.plan.steps), 1)],
        "episodes": int(stats.episodes),
        "finished": int(stats.finished),
        "reward": _json_number(float(stats.reward)),
        "routed_frames": np.asarray(stats.routed_frames)[: len(context.remap.global_to_local)].tolist(),
        "guarded": [float(share) for share in np.asarray(stats.guarded)[: len(context.plan.guards)]],
    }


def _is_finite(params: Any) -> bool:
    import jax

    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
