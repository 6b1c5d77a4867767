"""Reflections: how the episodes of a run went, for a model that proposes skills (after Eureka, arXiv 2310.12931)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Reflection", "Term"]


@dataclass(frozen=True)
class Term:
    """What one addend of a reward came to in the plan's last step.

    Attributes:
        text: the addend, with its sign.
        fired: share of the step's frames in which it was not 0.
        mean: its mean sum over a try of the step.
    """

    text: str
    fired: float
    mean: float


@dataclass(frozen=True)
class Reflection:
    """How a run's episodes went with the parameters that it ended with.

    Attributes:
        frames: the run's frames at the checkpoint that was played.
        episodes, successes: played from fresh worlds, and those in which the whole plan was done.
        tries: episodes that got to the plan's last step, whose skill the run was to learn.
        median_length: steps of the median successful episode; None without one.
        ends: by plan step, deaths and timeouts of the episodes that failed in it.
        reward: the last skill's whole reward; `terms`: its addends.
        changes: mean change of each item that the last skill speaks of, over the last step of successful episodes, by
            fluent; empty without a success.
    """

    frames: int
    episodes: int
    successes: int
    tries: int
    median_length: float | None
    ends: tuple[tuple[int, int], ...]
    reward: Term
    terms: tuple[Term, ...]
    changes: Mapping[str, float]

    @property
    def success(self) -> float:
        """The share of the episodes that succeeded."""
        return self.successes / self.episodes

    def as_dict(self) -> dict[str, Any]:
        """The reflection as JSON-ready data; `from_dict` is its inverse."""
        lists = {"ends": [list(pair) for pair in self.ends], "terms": [asdict(term) for term in self.terms]}
        return {**vars(self), **lists, "reward": asdict(self.reward), "changes": dict(self.changes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reflection:
        """The reflection that `as_dict` described."""
        lists = {
            "ends": tuple((deaths, timeouts) for deaths, timeouts in data["ends"]),
            "terms": tuple(Term(**term) for term in data["terms"]),
        }
        return cls(**{**data, **lists, "reward": Term(**data["reward"]), "changes": dict(data["changes"])})
