"""`flowrl propose`: one round of proposals with its question, the answer and the result of each gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from flowrl_core.specs.campaign import FrontierSpec

if TYPE_CHECKING:
    from flowrl_core.llm.drafts import Draft
    from flowrl_core.proposals.model import Examination
    from flowrl_core.specs.campaign import CampaignSpec
    from flowrl_core.stages.proposals.context import ProposalContext
    from flowrl_core.stages.proposals.propose import RoundOutcome
    from flowrl_core.storage.layout import Home
    from flowrl_core.storage.registry import Registry

__all__ = ["propose"]

_FRONTIER = Group("Frontier", sort_key=2)
_DEFAULT = FrontierSpec()


def propose(
    *,
    target: Annotated[list[str] | None, Parameter(negative="")] = None,
    campaign: str | None = None,
    env: str | None = None,
    knowledge: str | None = None,
    model: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    frontier: Annotated[FrontierSpec, Parameter(group=_FRONTIER)] = _DEFAULT,
) -> int:
    """Ask a language model for skills that lead to the targets; show question, answer and gate results.

    The request is sent, booked and journaled as in a campaign. Exit code 0 if a proposal passes all gates.

    Parameters
    ----------
    target
        A skill to reach, or a fluent to obtain (inv.iron_pickaxe); repeat it for more.
    campaign
        The campaign whose skills, failures and refusals go into the question ("default" if not given).
    env
        The environment (default: that of the campaign, else craftax-classic).
    knowledge
        A TOML file, or the name of a shipped knowledge base (default: the campaign's, else the environment's).
    model
        PROVIDER:NAME, or NAME@URL; the same as --frontier.model.
    dry_run
        Record no proposal: the campaign's skills stay as they are. The requests are sent, and count as its spending.
    config
        A TOML file as for `flowrl campaign`. Options override it.
    """
    import asyncio
    import contextlib

    from flowrl_cli.request.campaign import make_request, merge_sources
    from flowrl_cli.request.inputs import existing_registry
    from flowrl_core.storage.registry import Registry

    given = frontier.model_dump(exclude_unset=True) | ({"model": model} if model else {})
    single = {"targets": target, "campaign": campaign, "env": env, "knowledge": knowledge}
    typed: dict[str, Any] = {name: value for name, value in single.items() if value is not None}
    merged, written = merge_sources(config, {**typed, "frontier": given})
    if merged.get("targets"):  # otherwise the settings are those of the campaign's earlier start
        merged["frontier"] = {"kind": "hybrid", **merged["frontier"]}
    home, known = existing_registry()
    with known or contextlib.nullcontext(), written.errors():
        request = make_request(merged, written)
    home.check_writable()  # the answer is journaled, also in a dry run
    # A dry run creates no registry; if one exists, the spending is booked there.
    registry = None if known is None and dry_run else Registry.open(home)
    with registry or contextlib.nullcontext():
        return asyncio.run(_round(home, registry, request.spec, request.context, dry_run=dry_run))


async def _round(
    home: Home, registry: Registry | None, spec: CampaignSpec, context: ProposalContext, *, dry_run: bool
) -> int:
    from flowrl_core.llm.client import connect
    from flowrl_core.llm.drafts import draft
    from flowrl_core.stages.proposals import propose
    from flowrl_core.stages.proposals.spending import CampaignBook, UnboundBook, estimate
    from flowrl_core.storage.journal import FileJournal

    sent = draft(propose.question_of(context), spec.frontier)
    _print_question(sent)
    print(estimate(spec.frontier, sent.input_tokens), flush=True)
    is_known = registry is not None and spec.campaign in {one.name for one in registry.campaigns.all()}
    # A dry run for an existing campaign is booked to it: the money is spent.
    is_booked = registry is not None and (is_known or not dry_run)
    if dry_run:
        counted = "count as its spending" if is_booked else "are booked nowhere, as there is no such campaign"
        print(f"Dry run: no proposal is recorded for campaign {spec.campaign}; the requests {counted}", flush=True)
    book = CampaignBook(registry, spec) if registry is not None and is_booked else UnboundBook(spec.frontier)
    model = connect(spec.frontier, book=book, journal=FileJournal(home.journal))
    if registry is not None and not dry_run and not is_known:
        registry.campaigns.record(spec, context.knowledge.skills)
    outcome = await propose.propose(context, model.ask)
    _print_outcome(outcome)
    if not dry_run and registry is not None:
        for row in propose.record(registry, context, outcome):
            print(f"{row.state}: {row.name or 'no proposal'}")
    return 0 if outcome.sound else 1


def _print_question(sent: Draft) -> None:
    for role, text in sent.messages:
        print(f"--- {role}\n{text}\n")
    print(f"--- the answer's schema: JSON Schema of {len(str(sent.schema)):,} characters")


def _print_outcome(outcome: RoundOutcome) -> None:
    from flowrl_cli.views.proposals import findings_text
    from flowrl_cli.views.tables import print_json, print_table

    print(f"\n--- answer of {outcome.model}" if outcome.model else "\n--- no answer")
    for fault in outcome.faults:
        print(findings_text([fault]))
    for one in outcome.examinations:
        print_json(one.proposal.as_dict())
    rows = []
    for one in outcome.examinations:
        told = (*one.refusals, *one.repairs)
        rows.append((one.proposal.skill.name, _verdict(one), _plan(one), findings_text(told)))
    print_table(("proposal", "gates", "plan", "why"), rows, title="\nGate results", prose=["plan", "why"])


def _verdict(examination: Examination) -> str:
    if not examination.is_sound:
        return f"refused by {examination.refusals[0].gate}"
    return "passed, repaired" if examination.repairs else "passed"


def _plan(examination: Examination) -> str | None:
    if examination.plan is None:
        return None
    return " -> ".join(f"{step.skill} x{step.n}" if step.n > 1 else step.skill for step in examination.plan.steps)
