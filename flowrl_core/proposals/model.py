"""Proposals: skills that a frontier would add to a campaign, and their examination by the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from flowrl_core.skills.model import Plan, Skill

__all__ = ["DIFFICULTIES", "Difficulty", "Examination", "Finding", "Gate", "Proposal"]

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)

Gate = Literal["answer", "name", "effects", "new", "reachable", "plan", "program", "transitions", "interest"]
"""The gates in order; the first refusal ends the examination."""


@dataclass(frozen=True)
class Proposal:
    """A frozen record of a proposed skill, untrusted until it has passed the gates.

    Attributes:
        skill: the definition; its texts and names are untrusted.
        difficulty: the expected difficulty of learning it, which determines its frame budget.
        why: the proposer's reason.
    """

    skill: Skill
    difficulty: Difficulty = "medium"
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the proposal as JSON-ready data; `from_dict` is the inverse."""
        return {"skill": self.skill.as_dict(), "difficulty": self.difficulty, "why": self.why}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Proposal:
        """Return the proposal from the output of `as_dict`."""
        return cls(Skill.from_dict(data["skill"]), data["difficulty"], data["why"])


@dataclass(frozen=True)
class Finding:
    """A frozen finding of a gate.

    Attributes:
        code: short and stable.
        sentence: the problem and the remedy, for the proposer.
        evidence: the test result that shows it; empty if nothing was run.
    """

    gate: Gate
    code: str
    sentence: str
    evidence: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the finding as JSON-ready data; `Finding(**data)` is the inverse."""
        return asdict(self)


@dataclass(frozen=True)
class Examination:
    """A frozen record of how one proposal fared at the gates.

    Attributes:
        proposal: the original proposal; `repaired`: the proposal after the gates' repairs.
        refusals: why it is not trained; empty if it is sound.
        repairs: the gates' changes, each with its evidence.
        plan: the verified plan; None if the examination ended before.
        waits_for: the skills of the plan that are not learned yet.
    """

    proposal: Proposal
    repaired: Proposal
    refusals: tuple[Finding, ...] = ()
    repairs: tuple[Finding, ...] = ()
    plan: Plan | None = None
    waits_for: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it passed all gates."""
        return not self.refusals
