"""Parameters of a skill's training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from flowrl_core.errors import InputError
from flowrl_core.quantities import Number, Whole
from flowrl_core.specs.base import Spec
from flowrl_core.types import MergePolicy, View

__all__ = ["STALL_MINUTES", "EvaluationSpec", "SkillConfig", "TrainingSpec", "check_episodes", "read_parameters"]

STALL_MINUTES = 15.0
"""A run without progress for this long is stopped and retried, unless its campaign says otherwise."""

Fraction = Annotated[Number, Field(ge=0.0, le=1.0)]
Share = Annotated[Number, Field(gt=0.0, le=1.0)]


class TrainingSpec(Spec):
    """How a skill is trained."""

    frames: Whole = Field(
        default=4_000_000, ge=1, description="Maximum number of environment steps of one run (its budget)"
    )
    num_envs: Whole = Field(default=64, ge=1, le=65_536, description="Number of parallel environments")
    rollout_length: Whole = Field(default=32, ge=1, le=4_096, description="Steps per environment in one update (T)")
    minibatch_size: Whole = Field(default=256, ge=1, description="Samples of one expert per gradient step")
    epochs: Whole = Field(default=4, ge=1, le=64, description="Passes over each rollout")
    learning_rate: Number = Field(default=1e-3, gt=0.0, le=1.0, description="Adam's step size at the start")
    final_learning_rate_share: Share = Field(
        default=0.1, description="Share of learning_rate left at the end of the budget; 1: it stays the same"
    )
    discount: Fraction = Field(default=0.99, description="Gamma")
    gae_lambda: Fraction = Field(default=0.9, description="Lambda of generalised advantage estimation")
    clip: Number = Field(default=0.2, gt=0.0, le=10.0, description="PPO's clipping range, for policy and value")
    entropy_weight: Number = Field(
        default=0.01, ge=0.0, le=10.0, description="Weight of the entropy bonus at the start"
    )
    final_entropy_share: Share = Field(
        default=0.2, description="Share of entropy_weight left at the end of the budget; 1: it stays the same"
    )
    value_weight: Number = Field(default=0.5, ge=0.0, le=10.0, description="Weight of the value loss")
    max_grad_norm: Number = Field(default=0.5, gt=0.0, description="Gradients are clipped to this global norm")
    width: Whole = Field(default=64, ge=1, le=4_096, description="Units of each hidden layer of an expert")
    max_experts: Whole = Field(
        default=8, ge=1, le=256, description="Number of experts a run has room for; grows to the next power of two"
    )
    episode_limit: Whole = Field(
        default=300, ge=1, le=10_000, description="Steps after which an episode counts as failed"
    )
    credit: Literal["bootstrap", "terminal"] = Field(
        default="bootstrap",
        description="Credit across skill boundaries: the next expert's value, or none (the boundary is terminal)",
    )
    snapshot_fraction: Fraction = Field(
        default=0.5, description="Share of resets that start at the beginning of a later plan step"
    )
    snapshot_capacity: Whole = Field(
        default=256, ge=1, description="Number of entry states kept, of all plan steps together"
    )
    shaping: Number = Field(
        default=1.0,
        ge=0.0,
        le=10.0,
        description="Weight of the rewards that the environment declares for every skill, such as hitting back, and of "
        "guards' own; it fades to 0 over the last quarter of the budget",
    )
    world_pool: Whole = Field(default=256, ge=1, description="Pre-generated worlds for resets")
    world_uses: Whole = Field(default=8, ge=1, le=1_000, description="Episodes after which a pool world is replaced")
    action_masks: bool = Field(
        default=False,
        description="Restrict each expert to the environment's basic actions and those that its skill declares, and "
        "forbid those that are seen to kill",
    )
    canonical_view: bool = Field(
        default=True,
        description="Let new experts see views that differ by a symmetry of the environment as one, if it declares any",
    )
    compass: bool = Field(
        default=True,
        description="Tell new experts of a target out of view where they saw one last, or else where they have not "
        "looked yet, if the environment is a grid",
    )
    guards: bool = Field(
        default=True,
        description="Let the learned guards that a skill lists take over in its plan when they are needed",
    )
    checkpoint_updates: Whole = Field(default=40, ge=1, description="Updates between mid-run checkpoints")
    seed: Whole = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the run")

    @property
    def view(self) -> View:
        """What a new expert sees."""
        return View(View.CANONICAL * self.canonical_view | View.COMPASS * self.compass)


class EvaluationSpec(Spec):
    """How a skill is evaluated."""

    threshold: Number = Field(
        default=0.75,
        gt=0.0,
        lt=1.0,
        description="A skill is learned only if the lower bound of its success reaches this",
    )
    level: Number = Field(default=0.05, gt=0.0, lt=0.5, description="One-sided error level, shared by all looks")
    looks: Whole = Field(default=4, ge=1, le=16, description="Maximum number of looks per run")
    episodes: Whole = Field(default=512, ge=1, le=65_536, description="Episodes per look, each in a fresh world")
    target: Number = Field(
        default=0.88, gt=0.0, le=1.0, description="Smoothed training success that triggers the first look"
    )
    target_step: Number = Field(
        default=0.02, ge=0.0, le=0.5, description="Increase of the target after each failed look"
    )
    target_fall: Fraction = Field(
        default=0.08, description="Decrease of the target as the smoothing window grows, not below the threshold"
    )
    min_frames: Whole = Field(default=16_384, ge=0, description="Frames before the first look and between two looks")
    min_episodes: Whole = Field(
        default=64, ge=1, description="Finished episodes required in the smoothing window before a look"
    )
    window_growth: Whole = Field(
        default=4_096,
        ge=0,
        description="Frames of the run for each episode in the smoothing window, once that makes more than "
        "min_episodes; 0: the window does not grow",
    )
    stop_hopeless: bool = Field(
        default=True,
        description="End a run early, after a last look, if a forecast of its success at the budget's end misses the "
        "threshold",
    )
    head_episodes: Whole = Field(
        default=128,
        ge=0,
        description="Minimum number of episodes that measure the heads before a run starts (rounded up to a multiple "
        "of num_envs); 0: do not measure",
    )


class SkillConfig(Spec):
    """What is decided about one skill's run: recorded in its config.json."""

    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    merge: MergePolicy = "most_frames"
    stall_minutes: Number = STALL_MINUTES
    reflect: bool = Field(
        default=False, description="At the run's end, record how its episodes went, for a model that proposes skills"
    )


_BEFORE: dict[str, dict[str, Any]] = {
    "training": {
        "final_learning_rate_share": 1.0,
        "final_entropy_share": 1.0,
        "shaping": 0.0,
        "canonical_view": False,
        "compass": False,
    },
    "evaluation": {"window_growth": 0, "stop_hopeless": False},
}
"""By group, the fields that were added since parameters are recorded, with the values that leave training as it was."""


def read_parameters(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded parameters of a campaign or run, completed by the fields that their FlowRL did not have.

    Such a field gets the value that stands for training as it was then: what was begun goes on in the same way.
    """
    return {**recorded, **{group: {**values, **recorded.get(group, {})} for group, values in _BEFORE.items()}}


def check_episodes(field: str, episodes: int, environments: int, *, num_envs: str = "num_envs") -> None:
    """Check that the environments can share the episodes equally.

    Args:
        field, num_envs: how the user writes the two fields.

    Raises:
        InputError: `episodes` is not a multiple of `environments`; the remedy suggests the nearest one.
    """
    if episodes % environments:
        nearest = max(1, round(episodes / environments)) * environments
        raise InputError(
            field, f"{episodes} is not a multiple of {num_envs} ({environments})", f"Use, for example, {nearest}"
        )
