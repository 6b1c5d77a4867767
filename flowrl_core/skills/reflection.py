"""Reflections: episode statistics of a run for a model that proposes skills (after Eureka, arXiv 2310.12931)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flowrl_core.types import FailedEnds

__all__ = ["Reflection", "Term"]


@dataclass(frozen=True)
class Term:
    """A frozen record of what one addend of a reward contributed in the plan's last step.

    Attributes:
        text: the addend, with its sign.
        fired: share of the step's frames in which it was nonzero.
        mean: its mean sum over one attempt at the step.
    """

    text: str
    fired: float
    mean: float


@dataclass(frozen=True)
class Reflection:
    """A frozen record of how episodes went with a run's final parameters.

    Attributes:
        frames: the run's frames at the evaluated checkpoint.
        episodes, successes: episodes from fresh worlds, and those that completed the whole plan.
        tries: episodes that reached the plan's last step, whose skill the run trains.
        median_length: median number of steps of successful episodes; None if there are none.
        ends: by plan step, how the episodes that failed in it ended.
        reward: the last skill's whole reward; `terms`: its addends.
        changes: by fluent, mean change of each item that the last skill mentions, over the last step of successful
            episodes; empty without a success.
    """

    frames: int
    episodes: int
    successes: int
    tries: int
    median_length: float | None
    ends: tuple[FailedEnds, ...]
    reward: Term
    terms: tuple[Term, ...]
    changes: Mapping[str, float]

    @property
    def success(self) -> float:
        """The share of successful episodes."""
        return self.successes / self.episodes

    def as_dict(self) -> dict[str, Any]:
        """Return the reflection as JSON-ready data; `from_dict` is the inverse."""
        lists = {"ends": [list(counts) for counts in self.ends], "terms": [asdict(term) for term in self.terms]}
        return {**vars(self), **lists, "reward": asdict(self.reward), "changes": dict(self.changes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reflection:
        """Return the reflection from the output of `as_dict`."""
        lists = {
            "ends": tuple(FailedEnds(*counts) for counts in data["ends"]),
            "terms": tuple(Term(**term) for term in data["terms"]),
        }
        return cls(**{**data, **lists, "reward": Term(**data["reward"]), "changes": dict(data["changes"])})
