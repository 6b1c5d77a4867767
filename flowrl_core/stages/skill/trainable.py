"""A skill's run as a `Trainable` of the training loop: PPO updates, the success window, and when a look is due."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowrl_core.learning.loop import Trainable, UpdateResult
from flowrl_core.learning.schedule import annealed, look_target, next_action, shaping_weight
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

RENEWABLE = tuple(("learner", part) for part in ("playing", "pool", "use", "snapshots"))
"""The parts of a checkpoint that begin anew where an earlier version wrote them otherwise: the environments, whose
episodes then start again. Experts, their optimizers, counters and random streams go on."""


@dataclass(frozen=True)
class SkillState:
    """The state that the next update needs, and the success of recent ones."""

    learner: LearnerState
    window: SuccessWindow


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

    def success(self, state: SkillState) -> float | None:
        """The smoothed training success; None until enough episodes have ended."""
        return _json_number(self._success(state))

    def target(self, update: int) -> float:
        """The training success at which the next look is due."""
        num_looks = sum(look.frames < self.frames(update) for look in self.looks)
        return look_target(num_looks, self.context.config.evaluation)

    def is_due(self, state: SkillState, update: int) -> bool:
        """Whether training pauses here, for a look or because the run is over."""
        frames, spec = self.frames(update), self.context.config.evaluation
        if self.looks and frames < self.looks[-1].frames:
            return False  # the evaluated checkpoint is damaged: train it again, with the same random numbers
        return next_action(frames, self.budget, self._success(state), self.looks, spec) != "train"

    def _success(self, state: SkillState) -> float:
        return state.window.success(len(self.context.plan.steps), self.context.config.evaluation.min_episodes)


def skill_trainable(context: RunContext, schedule: LookSchedule) -> Trainable[SkillState]:
    """The run's learner: one rollout and one PPO update at a time."""
    from flowrl_core.learning.learner import training_mode
    from flowrl_core.storage.checkpoints import load_tree

    training = context.config.training
    learner, plan = context.learner(), context.plan_arrays()

    def hyper(update: int, step_scale: float) -> Hyperparameters:
        from flowrl_core.learning.learner import hyperparameters

        now = annealed(training, schedule.frames(update - 1))
        return hyperparameters(now.model_copy(update={"learning_rate": now.learning_rate * step_scale}))

    def init() -> SkillState:
        seed, _ = load_tree(context.directory.seed)
        worlds, key = (jax_stream(context.seed, name) for name in ("worlds", "train"))
        return SkillState(learner.init(seed, worlds, key, training.world_uses), empty_window(MAX_STEPS))

    def step(state: SkillState, update: int, step_scale: float) -> UpdateResult[SkillState]:
        mode = training_mode(
            training.snapshot_fraction,
            state.window.failing(len(context.plan.steps)),
            shaping_weight(training, schedule.frames(update - 1)),
        )
        trained, stats, parts = learner.step(state.learner, plan, hyper(update, step_scale), mode, training.world_uses)
        after = SkillState(trained, state.window)
        losses = {name: float(value) for name, value in parts._asdict().items()}
        if problem := _problem(losses):
            return UpdateResult(after, {}, problem)
        after.window.add(np.asarray(stats.attempts), np.asarray(stats.successes), int(stats.episodes))
        mark("first_update")
        return UpdateResult(after, _metrics(context, schedule, after, update, stats) | losses)

    def restore(tree: Any) -> SkillState:
        return SkillState(learner.resume(tree["learner"]), SuccessWindow.from_dict(tree["window"]))

    return Trainable(
        init=init,
        step=step,
        tree=lambda state: {"learner": state.learner, "window": state.window.as_dict()},
        template=lambda: {"learner": learner.shape(), "window": empty_window(MAX_STEPS).as_dict()},
        restore=restore,
        facts=lambda state, update: {
            "run_frames": schedule.frames(update),
            "routed_frames": np.asarray(state.learner.routed_frames).tolist(),
        },
        problem=lambda state: "" if _is_finite(state.learner.params) else "a parameter is not finite",
    )


def _problem(losses: Mapping[str, float]) -> str:
    which = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
    return f"a loss is not finite ({which})" if which else ""


def _metrics(context: RunContext, schedule: LookSchedule, state: SkillState, update: int, stats: Any) -> dict[str, Any]:
    return {
        "run_frames": schedule.frames(update),
        "success": schedule.success(state),
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
