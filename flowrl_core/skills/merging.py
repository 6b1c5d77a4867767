"""Merging: which version of a shared expert becomes its head, from which later runs start, when a run ends."""

from __future__ import annotations

from flowrl_core.types import MergeAction, MergePolicy

__all__ = ["decide"]


def decide(
    policy: MergePolicy,
    *,
    is_learned: bool,
    head_frames: int | None,
    candidate_frames: int,
    changed: bool,
    successes: tuple[int, int] | None = None,
) -> MergeAction:
    """Return what a run does to the head of one of its experts: create it ("new"), replace it ("updated"), or keep it.

    A run that did not learn changes no head. An expert without a head gets its first one under any policy. After that
    `most_frames` moves the head to the version with more cumulative frames (a tie keeps it), so that parallel runs end
    with the same head in any commit order; `frozen` never moves it.

    `evaluated` moves the head if the version succeeded at least as often on the expert's own skill, in as many episodes
    from the same worlds: of two populations, the one with more successes is selected (Sobel and Huyett 1957). With 512
    episodes each, a version worse by 0.05 around a success rate of 0.8 is accepted in 2% of cases, one worse by 0.02 in
    21%; with 128 episodes, in 16% and 34%. A test for "worse" at level 0.05 would accept 80% of the latter, and many
    small losses add up to drift. Without measurements, the rule of `most_frames` applies.

    Args:
        policy: the merge policy of the campaign.
        is_learned: the run's verdict.
        head_frames: cumulative routed frames of the current head; None if there is none yet.
        candidate_frames: cumulative routed frames of the run's version: those of its seed plus those of the run.
        changed: whether the run's version differs from the head in content.
        successes: of the head and of the version, if measured.
    """
    if not is_learned:
        return "kept"
    if head_frames is None:
        return "new"
    if policy == "evaluated" and successes is not None:
        is_better = successes[1] >= successes[0]
    else:
        is_better = policy != "frozen" and candidate_frames > head_frames
    return "updated" if changed and is_better else "kept"
