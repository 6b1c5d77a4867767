"""What changes as a run's budget is used: its step size, when to evaluate and when it ends. No JAX here.

Everything here is a pure function of frames, training success and past looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec

__all__ = ["Action", "LookFacts", "annealed", "look_level", "look_target", "next_action", "shaping_weight"]

Action = Literal["train", "look", "learned", "failed"]

_HIGHEST_TARGET = 0.97
_FADING = 0.25


class LookFacts(Protocol):
    """The facts of a past look that the schedule uses."""

    @property
    def frames(self) -> int:
        """Frames of the run at the time of the look."""

    @property
    def lower_bound(self) -> float:
        """Lower bound of the success, corrected for the number of looks."""


def annealed(training: TrainingSpec, run_frames: int) -> TrainingSpec:
    """Return the settings of the update that begins at these frames.

    Learning rate and entropy weight fall geometrically over the budget: v * final_share ** (run_frames / frames).
    """
    used = min(run_frames / training.frames, 1.0)
    return training.model_copy(
        update={
            "learning_rate": training.learning_rate * training.final_learning_rate_share**used,
            "entropy_weight": training.entropy_weight * training.final_entropy_share**used,
        }
    )


def look_level(evaluation: EvaluationSpec) -> float:
    """Return the error level of one look.

    The total level is shared equally (Bonferroni), since any look may end the run as learned.
    """
    return evaluation.level / evaluation.looks


def look_target(num_looks: int, evaluation: EvaluationSpec) -> float:
    """Return the smoothed training success that triggers the next look. It rises with each failed look."""
    return max(evaluation.target, min(_HIGHEST_TARGET, evaluation.target + num_looks * evaluation.target_step))


def next_action(
    run_frames: int, budget: int, success: float, looks: Sequence[LookFacts], evaluation: EvaluationSpec
) -> Action:
    """Return a run's next action.

    Args:
        run_frames: frames so far; budget: the maximum.
        success: smoothed training success; NaN is never a success.
        looks: past looks, in order.

    One look is reserved for the last frame, so that a run never fails without an evaluation at its end.
    """
    if looks and looks[-1].lower_bound >= evaluation.threshold:
        return "learned"
    if len(looks) >= evaluation.looks:
        return "failed"
    if run_frames >= budget:
        return "failed" if looks and looks[-1].frames >= run_frames else "look"
    since = run_frames - (looks[-1].frames if looks else 0)
    is_crossing = not math.isnan(success) and success >= look_target(len(looks), evaluation)
    if is_crossing and since >= evaluation.min_frames and len(looks) < evaluation.looks - 1:
        return "look"
    return "train"


def shaping_weight(training: TrainingSpec, run_frames: int) -> float:
    """Return the weight of shaping after so many frames: constant, then falling to 0 over the budget's last quarter.

    At the end of a run the experts learn from what counts alone.
    """
    left = 1 - run_frames / training.frames
    return training.shaping * min(max(left / _FADING, 0.0), 1.0)
