"""Records of proposal rounds: the proposals to a campaign and their outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowrl_core.proposals.model import Examination, Finding, Proposal

__all__ = ["Examined", "ProposalRecord", "ProposalState"]

ProposalState = Literal["accepted", "refused"]


@dataclass(frozen=True)
class Examined:
    """One examined proposal of a round, or an answer without a valid proposal.

    Attributes:
        examination: the gates' findings; None for a malformed or empty answer.
        frames: the frame budget chosen for it.
        refusals: further reasons for refusing it, or the faults of the answer.
    """

    examination: Examination | None
    frames: int | None = None
    refusals: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.examination is None and not self.refusals:
            raise ValueError("an answer without a proposal needs a finding that says why")

    @property
    def is_accepted(self) -> bool:
        """Whether the skill is added to the campaign."""
        return not self.all_refusals

    @property
    def all_refusals(self) -> tuple[Finding, ...]:
        """All reasons for refusing the skill."""
        return (*(self.examination.refusals if self.examination is not None else ()), *self.refusals)


@dataclass(frozen=True)
class ProposalRecord:
    """One proposal to a campaign, or an answer without a valid one, and its outcome.

    Attributes:
        round: number of the round in the campaign, from 1; all proposals of one answer share it.
        name: the skill's name after repair; "" without a proposal.
        model: the model that proposed it.
        call: the journal's key of the answer; "" without one.
        proposal, repaired: as proposed, and as repaired by the gates; None for an answer without a valid proposal.
        refusals: why it was refused; empty if it was accepted.
        identity: identity of the accepted definition; None unless accepted.
        frames: the frame budget chosen for it.
        revises: identity of the failed definition that it replaced.
    """

    id: int
    campaign: str
    round: int
    name: str
    model: str
    call: str
    state: ProposalState
    proposal: Proposal | None
    repaired: Proposal | None
    refusals: tuple[Finding, ...]
    repairs: tuple[Finding, ...]
    identity: str | None
    frames: int | None
    revises: str | None
    created_at: float
