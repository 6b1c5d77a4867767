"""What changes as a run's budget is used: its step size, when to evaluate and when it ends. No JAX here.

Everything here is a pure function of frames, training success and past looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec

__all__ = [
    "Action",
    "LookFacts",
    "annealed",
    "look_level",
    "look_target",
    "look_window",
    "next_action",
    "next_look",
    "shaping_weight",
]

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


def look_window(run_frames: int, evaluation: EvaluationSpec) -> int:
    """Return the number of ended episodes over which the training success is smoothed at these frames."""
    growth = evaluation.window_growth
    return max(evaluation.min_episodes, run_frames // growth) if growth else evaluation.min_episodes


def look_target(num_looks: int, run_frames: int, evaluation: EvaluationSpec) -> float:
    """Return the smoothed training success that triggers the next look.

    It falls from `target` by up to `target_fall`, not below the threshold, as the window grows: what it lies above the
    lowest target allows for chance, which shrinks with the root of the number of episodes. So a success that is enough,
    but below the first target, is found before the budget's end. Each failed look raises it.
    """
    lowest = max(evaluation.target - evaluation.target_fall, min(evaluation.target, evaluation.threshold))
    chance = math.sqrt(evaluation.min_episodes / look_window(run_frames, evaluation))
    first = lowest + (evaluation.target - lowest) * chance
    return max(first, min(_HIGHEST_TARGET, first + num_looks * evaluation.target_step))


def next_look(last: int, num_looks: int, budget: int, evaluation: EvaluationSpec) -> int:
    """Return the frames from which another look may follow one that failed.

    `min_frames` later while the window has not grown. Then the looks that are left are spread over the rest of the
    budget, each the same ratio of frames after the one before, so that chance at the target does not use them up.

    Args:
        last: frames of the last look.
        num_looks: looks so far.
    """
    left = evaluation.looks - num_looks
    if left < 1 or look_window(last, evaluation) <= evaluation.min_episodes:
        return last + evaluation.min_frames
    return max(last + evaluation.min_frames, math.floor(last * (budget / last) ** (1 / left)))


def next_action(
    run_frames: int,
    budget: int,
    success: float,
    looks: Sequence[LookFacts],
    evaluation: EvaluationSpec,
    *,
    is_hopeless: bool = False,
) -> Action:
    """Return a run's next action.

    Args:
        run_frames: frames so far; budget: the maximum.
        success: smoothed training success; NaN is never a success.
        looks: past looks, in order.
        is_hopeless: whether the run ends here, before its budget does (see `learning.forecast`).

    One look is reserved for the last frame, so that a run never fails without an evaluation at its end.
    """
    if looks and looks[-1].lower_bound >= evaluation.threshold:
        return "learned"
    if len(looks) >= evaluation.looks:
        return "failed"
    if run_frames >= budget or is_hopeless:
        return "failed" if looks and looks[-1].frames >= run_frames else "look"
    target = look_target(len(looks), run_frames, evaluation)
    is_crossing = not math.isnan(success) and success >= target
    first = next_look(looks[-1].frames, len(looks), budget, evaluation) if looks else evaluation.min_frames
    if is_crossing and run_frames >= first and len(looks) < evaluation.looks - 1:
        return "look"
    return "train"


def shaping_weight(training: TrainingSpec, run_frames: int) -> float:
    """Return the weight of shaping after so many frames: constant, then falling to 0 over the budget's last quarter.

    At the end of a run the experts learn from what counts alone.
    """
    left = 1 - run_frames / training.frames
    return training.shaping * min(max(left / _FADING, 0.0), 1.0)
