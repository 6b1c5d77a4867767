"""Which version of a shared expert the next runs start from, once a run has ended."""

from __future__ import annotations

from typing import Literal

__all__ = ["MergeAction", "MergePolicy", "decide"]

MergePolicy = Literal["most_frames", "frozen"]
MergeAction = Literal["new", "updated", "kept"]


def decide(
    policy: MergePolicy,
    *,
    is_learned: bool,
    head_frames: int | None,
    candidate_frames: int,
    changed: bool,
) -> MergeAction:
    """What a run does to the head of one of its experts: sets the first one, moves it to its version, or keeps it.

    A run that did not learn moves nothing. An expert without a head gets its first one whatever the policy. After that
    `most_frames` moves the head to the version with more cumulative frames (a tie keeps it), so that parallel runs end
    with the same head in whichever order they commit; `frozen` never moves it.

    Args:
        policy: the merge policy of the campaign.
        is_learned: the run's verdict.
        head_frames: cumulative routed frames of the head as it is now; None if the expert has none yet.
        candidate_frames: cumulative routed frames of the run's version: those of its seed plus those of the run.
        changed: the run's version differs from the head in content.
    """
    if not is_learned:
        return "kept"
    if head_frames is None:
        return "new"
    is_better = policy == "most_frames" and candidate_frames > head_frames
    return "updated" if changed and is_better else "kept"
