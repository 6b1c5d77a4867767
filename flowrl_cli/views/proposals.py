"""A language model's proposals to a campaign, their outcome, and their cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flowrl_core.proposals.model import Finding
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.storage.limits import Spending
from flowrl_core.storage.records.proposals import ProposalRecord

__all__ = ["findings_text", "print_proposals", "proposal_line", "proposals_json", "spending_json", "spending_line"]

NO_PROPOSAL = "(no proposal)"
_MOST_SHOWN = 30


def print_proposals(records: Sequence[ProposalRecord]) -> None:
    """Print the table of the latest proposals, oldest first."""
    from flowrl_cli.views.tables import print_table

    columns = ("proposal", "round", "result", "why")
    shown = records[-_MOST_SHOWN:]
    rows = [(one.name or NO_PROPOSAL, one.round, _end_of(one), findings_text(_told(one))) for one in shown]
    title = "Proposals" if len(shown) == len(records) else f"The last {len(shown)} of {len(records)} proposals"
    first = ("proposal", "result", "why")
    print_table(columns, rows, title=f"\n{title}", first=first, prose=["why"], whole=["result"])


def proposal_line(record: ProposalRecord) -> str:
    """Return the outcome of one proposal as a line."""
    told = _told(record)[:1]
    return f"round {record.round}: {record.name or NO_PROPOSAL} {_end_of(record)} {findings_text(told)}".rstrip()


def proposals_json(records: Iterable[ProposalRecord]) -> list[dict[str, Any]]:
    """Return the proposals as `flowrl status --json` prints them."""
    return [
        {
            "round": one.round,
            "name": one.name,
            "state": one.state,
            "model": one.model,
            "frames": one.frames,
            "refusals": [finding.as_dict() for finding in one.refusals],
            "repairs": [finding.as_dict() for finding in one.repairs],
            "proposal": one.proposal.as_dict() if one.proposal else None,
        }
        for one in records
    ]


def spending_line(spent: Spending, limits: FrontierSpec) -> str:
    """Return what was spent on language models, and the limits, as one line."""
    tokens = spent.input_tokens + spent.output_tokens
    money = f"{spent.cost:.4f} US dollars" + (f" of {limits.max_cost:g}" if limits.max_cost else "")
    if spent.unpriced == spent.requests:
        money = "no known price"
    elif spent.unpriced:
        money += f" (without {spent.unpriced} requests without a known price)"
    requests = f"{spent.requests:,} of {limits.max_requests:,} requests"
    return f"Spent on language models: {requests}, {tokens:,} of {limits.max_tokens:,} tokens, {money}"


def spending_json(spent: Spending, limits: FrontierSpec) -> dict[str, Any]:
    """Return the spending as `flowrl status --json` prints it."""
    return {
        "requests": spent.requests,
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "cost": spent.cost,
        "unpriced": spent.unpriced,
        "limits": {"requests": limits.max_requests, "tokens": limits.max_tokens, "cost": limits.max_cost},
    }


def findings_text(findings: Iterable[Finding]) -> str:
    """Return the gates' findings, one after another."""
    return " ".join(
        f"[{one.gate}: {one.code}] {one.sentence}" + (f" ({one.evidence})" if one.evidence else "") for one in findings
    )


def _end_of(record: ProposalRecord) -> str:
    return "repaired and accepted" if record.repairs and record.state == "accepted" else record.state


def _told(record: ProposalRecord) -> tuple[Finding, ...]:
    return (*record.refusals, *record.repairs)
