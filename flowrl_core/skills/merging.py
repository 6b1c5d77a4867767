"""Which version of a shared expert the next runs start from, once a run has ended."""

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
    """What a run does to the head of one of its experts: sets the first one, moves it to its version, or keeps it.

    A run that did not learn moves nothing. An expert without a head gets its first one whatever the policy. After that
    `most_frames` moves the head to the version with more cumulative frames (a tie keeps it), so that parallel runs end
    with the same head in whichever order they commit; `frozen` never moves it.

    `evaluated` moves the head if the version succeeded at least as often on the expert's own skill, in as many episodes
    from the same worlds: of two populations, the one with more successes is selected (Sobel and Huyett 1957). With 512
    episodes each, a version that is worse by 0.05 around a success of 0.8 gets through in 2 of 100 cases, one worse by
    0.02 in 21; with 128 these would be 16 and 34. A test for "worse" at level 0.05 would let 80 of 100 of the latter
    through, and a little worse each time is how heads drift. What cannot be measured is decided as by `most_frames`.

    Args:
        policy: the merge policy of the campaign.
        is_learned: the run's verdict.
        head_frames: cumulative routed frames of the head as it is now; None if the expert has none yet.
        candidate_frames: cumulative routed frames of the run's version: those of its seed plus those of the run.
        changed: the run's version differs from the head in content.
        successes: of the head and of the version, where they were measured.
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
