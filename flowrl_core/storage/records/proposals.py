"""Records of rounds: what was proposed to a campaign, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowrl_core.proposals.model import Examination, Finding, Proposal

__all__ = ["Examined", "ProposalRecord", "ProposalState"]

ProposalState = Literal["accepted", "refused"]


@dataclass(frozen=True)
class Examined:
    """What a round brought, once for each proposal, or once for an answer that was none.

    Attributes:
        examination: what the gates said; None for an answer that was malformed or empty.
        frames: the budget that was chosen for it.
        refusals: why it is refused besides, or what was wrong with the answer.
    """

    examination: Examination | None
    frames: int | None = None
    refusals: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.examination is None and not self.refusals:
            raise ValueError("an answer without a proposal needs a finding that says why")

    @property
    def is_accepted(self) -> bool:
        """Whether the campaign gets the skill."""
        return not self.all_refusals

    @property
    def all_refusals(self) -> tuple[Finding, ...]:
        """Why it does not get it."""
        return (*(self.examination.refusals if self.examination is not None else ()), *self.refusals)


@dataclass(frozen=True)
class ProposalRecord:
    """One proposal to a campaign, or an answer that was none, and what became of it.

    Attributes:
        round: counts the campaign's rounds from 1; what came in one answer shares it.
        name: of the skill, as repaired; "" without a proposal.
        model: who proposed it.
        call: the journal's key of the answer; "" without one.
        proposal, repaired: as proposed, and as the gates left it; None for an answer that was no proposal.
        refusals: why it was refused; empty if it was accepted.
        identity: of the definition that the campaign got; None unless accepted.
        frames: the budget that was chosen for it.
        revises: identity of the failed definition whose place it took.
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
