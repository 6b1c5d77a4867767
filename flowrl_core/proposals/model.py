"""Proposals: skills that a frontier would add to a campaign, and what the gates say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from flowrl_core.skills.model import Plan, Skill

__all__ = ["DIFFICULTIES", "Difficulty", "Examination", "Finding", "Gate", "Proposal"]

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)

Gate = Literal["answer", "name", "effects", "new", "reachable", "plan", "program", "transitions", "interest"]
"""What looks at a proposal, in this order: the first that refuses ends the examination."""


@dataclass(frozen=True)
class Proposal:
    """A skill that was proposed. Nothing of it is trusted before the gates have passed it.

    Attributes:
        skill: the definition; its texts and names are somebody else's.
        difficulty: how hard it is expected to be to learn; its frames are chosen by it.
        why: the proposer's reason.
    """

    skill: Skill
    difficulty: Difficulty = "medium"
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The proposal as JSON-ready data; `from_dict` is its inverse."""
        return {"skill": self.skill.as_dict(), "difficulty": self.difficulty, "why": self.why}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Proposal:
        """The proposal that `as_dict` described."""
        return cls(Skill.from_dict(data["skill"]), data["difficulty"], data["why"])


@dataclass(frozen=True)
class Finding:
    """What a gate has found.

    Attributes:
        code: short and stable.
        sentence: what is wrong and what to do, for who proposed it.
        evidence: what shows it, where something was tried; else empty.
    """

    gate: Gate
    code: str
    sentence: str
    evidence: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as JSON-ready data; `Finding(**data)` is its inverse."""
        return asdict(self)


@dataclass(frozen=True)
class Examination:
    """What became of one proposal at the gates.

    Attributes:
        proposal: as it was proposed; `repaired` as the gates have left it.
        refusals: why it is not trained; empty if it is sound.
        repairs: what the gates have changed, each with its evidence.
        plan: the proven plan, if it got so far.
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
        """Whether all gates have passed it."""
        return not self.refusals
