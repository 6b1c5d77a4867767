"""When to look, and when a run is over: a pure function of frames, the training success and the looks so far. No JAX
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from flowrl_core.specs.skill import EvaluationSpec

__all__ = ["Action", "LookFacts", "look_level", "look_target", "next_action"]

Action = Literal["train", "look", "learned", "failed"]

_HIGHEST_TARGET = 0.97


class LookFacts(Protocol):
    """What the schedule needs to know of a look that was taken."""

    @property
    def frames(self) -> int:
        """Frames of the run when it was taken."""

    @property
    def lower_bound(self) -> float:
        """Lower bound of the success, corrected for the number of looks."""


def look_level(evaluation: EvaluationSpec) -> float:
    """The error level of one look: the whole level shared equally (Bonferroni), since any look may end the run as
    learned.
    """
    return evaluation.level / evaluation.looks


def look_target(num_looks: int, evaluation: EvaluationSpec) -> float:
    """The smoothed training success that triggers the next look. It rises with each look that failed."""
    return max(evaluation.target, min(_HIGHEST_TARGET, evaluation.target + num_looks * evaluation.target_step))


def next_action(
    run_frames: int, budget: int, success: float, looks: Sequence[LookFacts], evaluation: EvaluationSpec
) -> Action:
    """What a run does next.

    Args:
        run_frames: frames so far; budget: the most it may use.
        success: smoothed training success; NaN is never a success.
        looks: those taken so far, in order.

    One look is kept for the last frame, so that a run is never given up without having been judged at its end.
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
