"""Records of the library: experts, versions, bundles, merges, and evaluations of learned skills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowrl_core.skills.model import Plan
from flowrl_core.types import MergeAction, View

__all__ = [
    "Bundle",
    "BundleFacts",
    "Compared",
    "EvaluationOf",
    "EvaluationRecord",
    "ExpertRecord",
    "ExpertResult",
    "Measured",
    "Merge",
    "VersionRecord",
]

EvaluationOf = Literal["bundle", "heads"]


@dataclass(frozen=True)
class VersionRecord:
    """One immutable set of an expert's parameters.

    Attributes:
        expert: its global index.
        content: hash of the parameters, its name in the store of versions.
        frames: cumulative frames routed to the expert, including those of its ancestors.
        parent: the version it was seeded from: of the same expert, of an earlier definition's, or of the skill that it
            begins as.
        run: the run that made it.
    """

    id: int
    kind: str
    expert: int
    content: str
    frames: int
    parent: int | None
    run: int
    created_at: float


@dataclass(frozen=True)
class ExpertRecord:
    """An expert: one per identity and line.

    Attributes:
        env: its skill's environment.
        line: the library that it belongs to, see `Campaign`.
        view: what it sees.
        head: None until its skill is learned.
        bundle: the newest bundle of its own skill.
    """

    global_index: int
    identity: str
    env: str
    line: str
    name: str
    observation_size: int
    num_actions: int
    width: int
    view: View
    head: VersionRecord | None
    bundle: int | None


@dataclass(frozen=True)
class ExpertResult:
    """A run's result for one expert: its content, the frames routed to it, and the version it came from."""

    global_index: int
    content: str
    routed_frames: int
    seed_version: int | None


@dataclass(frozen=True)
class BundleFacts:
    """The measurement recorded in a learned run's bundle."""

    success: float
    lower_bound: float
    episodes: int
    threshold: float


@dataclass(frozen=True)
class Bundle:
    """The versions of all experts of a plan with which a skill was measured as learned.

    Attributes:
        line: the library in which it makes the skill learned, see `Campaign`.
        versions: global index to version.
    """

    id: int
    run: int
    identity: str
    line: str
    skill: str
    plan: Plan
    versions: Mapping[int, VersionRecord]
    success: float
    lower_bound: float
    episodes: int
    threshold: float


@dataclass(frozen=True)
class Measured:
    """The success of an expert's own skill with its head and with a run's version, all else being equal.

    Attributes:
        head: the version that was the head.
        episodes: number of episodes played with each of the two.
        head_successes, version_successes: episodes that reached the end of the skill's plan.
    """

    head: int
    episodes: int
    head_successes: int
    version_successes: int


@dataclass(frozen=True)
class Compared:
    """The comparisons that the merge policy `evaluated` decides by.

    Attributes:
        heads: the head of each expert of the run when it was read: global index to version id, None without a head.
        measured: by global index, for experts that could be measured and whose head differs from the run's version.
    """

    heads: Mapping[int, int | None]
    measured: Mapping[int, Measured]


@dataclass(frozen=True)
class Merge:
    """The effect of a run's end on one expert.

    Attributes:
        expert, name: its global index and its skill's name.
        action: new (its first head), updated (the head moved), kept.
        version: the run's version of it; `frames` are that version's cumulative frames.
        from_version, to_version: the head before and after.
        routed_frames: frames routed to it in this run.
        measured: the comparison of version and head, if the merge policy made one.
    """

    run: int
    expert: int
    name: str
    action: MergeAction
    version: int
    from_version: int | None
    to_version: int | None
    frames: int
    routed_frames: int
    measured: Measured | None


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation of a learned skill, outside any run.

    Attributes:
        of: which versions played: those of the newest bundle, or the heads of the same experts.
        versions: global index to version id.
        level: one-sided error level of `lower_bound`.
        steps: success of each plan step on its own.
        worlds: seeds of the worlds used.
    """

    id: int
    identity: str
    of: EvaluationOf
    versions: Mapping[int, int]
    episodes: int
    successes: int
    lower_bound: float
    level: float
    steps: tuple[float, ...]
    worlds: tuple[int, ...]
    created_at: float
