"""Campaigns in the corridor that a model grows, driven as the flow drives them but one thing after another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from corridor_runs import EVALUATION, KNOWLEDGE, TRAINING, drive

from flowrl_core.llm.client import connect
from flowrl_core.proposals.accepted import is_wanting
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.specs.campaign import CampaignSpec, FrontierSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.proposals.context import ProposalContext, initial_knowledge, read_context
from flowrl_core.stages.proposals.propose import propose, record
from flowrl_core.stages.proposals.spending import CampaignBook
from flowrl_core.storage.journal import FileJournal
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.proposals import ProposalRecord
from flowrl_core.storage.registry import Registry

NAME = "grown"


def spec_for(url: str, *targets: str, **changes: Any) -> CampaignSpec:
    """A campaign whose skills the model at `url` proposes; the changes are of its frontier."""
    frontier = {"kind": "model", "model": f"scripted@{url}", "answer_retries": 0, "fruitless_rounds": 2, **changes}
    return CampaignSpec(
        campaign=NAME,
        env="corridor",
        targets=list(targets),
        training=TRAINING,
        evaluation=EVALUATION,
        frontier=FrontierSpec.model_validate(frontier),
    )


def new_home(root: Path, basics: Home) -> Home:
    """A home at `root` with the session's compiled programs, and nothing learned."""
    root.mkdir()
    home = Home(root)
    home.cache.symlink_to(basics.cache)
    return home


def grow(home: Home, spec: CampaignSpec, base: Knowledge = KNOWLEDGE) -> ProposalContext:
    """The campaign taken to its end: what is ready is trained, else more is asked for."""
    base = initial_knowledge(base, spec)
    with Registry.open(home) as registry:
        registry.campaigns.record(spec, base.skills)
        model = connect(spec.frontier, book=CampaignBook(registry, spec), journal=FileJournal(home.journal))
        while True:
            context = read_context(registry, spec.campaign, spec, base)
            found = context.frontier
            if found.ready:
                _train(home, registry, spec, context, found.ready[0])
            elif is_wanting(found, context.facts) and context.fruitless < spec.frontier.fruitless_rounds:
                record(registry, context, asyncio.run(propose(context, model.ask)))
            else:
                return context


def one_round(home: Home, registry: Registry, spec: CampaignSpec) -> list[ProposalRecord]:
    """The campaign begun, and what its first round brought."""
    base = initial_knowledge(KNOWLEDGE, spec)
    registry.campaigns.record(spec, base.skills)
    model = connect(spec.frontier, book=CampaignBook(registry, spec), journal=FileJournal(home.journal))
    context = read_context(registry, spec.campaign, spec, base)
    return record(registry, context, asyncio.run(propose(context, model.ask)))


def grow_in_child(home: Home, spec: CampaignSpec) -> dict[str, Any]:
    """`grow` for a process of its own: names of the proposals with what became of them."""
    return {"proposals": [(one.name, one.state) for one in grow(home, spec).history]}


def _train(home: Home, registry: Registry, spec: CampaignSpec, context: ProposalContext, name: str) -> None:
    attempt = registry.skill_runs.begin(spec.campaign, context.figures[name].identity)
    drive(home, attempt.run, resolve(name, spec, **context.settings(name)))
    registry.attempts.end(attempt.id, "verdict")
