"""`flowrl status`: what a campaign has learned, read from the registry alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from flowrl_cli.views.view import SkillView
    from flowrl_core.storage.layout import Home
    from flowrl_core.storage.records.campaigns import Campaign
    from flowrl_core.storage.registry import Registry

__all__ = ["print_end", "print_status", "status"]

_COLUMNS = ("skill", "state", "expert", "frames", "success", "bound", "threshold", "looks", "merge", "time", "why")
_FIRST = ("skill", "state", "success", "bound", "frames", "looks", "why")


def status(
    campaign: str | None = None,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Show what a campaign has learned; no server is needed.

    Parameters
    ----------
    campaign
        The campaign; by default the one started last.
    as_json
        Print only JSON.
    """
    from flowrl_cli.checks.troubles import troubles
    from flowrl_cli.request.inputs import existing_registry
    from flowrl_cli.views.tables import print_json
    from flowrl_core.errors import InputError

    home, registry = existing_registry()
    if registry is None:
        if campaign is not None:
            raise InputError(
                "campaign", f"there is no campaign {campaign!r}", f"No campaign was ever started in {home.root}"
            )
        _say_nothing_started(home, as_json)
        return
    with registry:
        found = registry.campaigns.last() if campaign is None else registry.campaigns.get(campaign)
        if found is None:
            _say_nothing_started(home, as_json)
        elif as_json:
            from flowrl_cli.views.proposals import proposals_json, spending_json
            from flowrl_cli.views.view import status_json, view_campaign
            from flowrl_core.stages.upkeep.families import FAMILIES
            from flowrl_core.storage.families import damage

            print_json(
                {
                    **status_json(found, view_campaign(home, registry, found, asks_server=True)),
                    "proposals": proposals_json(registry.proposals.of(found.name)),
                    "spending": spending_json(registry.requests.spending(found.name), found.spec.frontier),
                    "damaged": [asdict(one) for one in damage(home, registry, FAMILIES, by_size=True)],
                    "troubles": troubles(home),
                }
            )
        else:
            print_status(home, registry, found)
            _say_troubles(home)


def print_status(home: Home, registry: Registry, campaign: Campaign) -> tuple[SkillView, ...]:
    """Print the campaign's table; return the views that it shows."""
    from flowrl_cli.views.proposals import print_proposals, spending_line
    from flowrl_cli.views.tables import print_table, say
    from flowrl_cli.views.view import view_campaign
    from flowrl_core.stages.upkeep.families import FAMILIES
    from flowrl_core.storage.damage import in_words
    from flowrl_core.storage.families import damage

    views = view_campaign(home, registry, campaign, asks_server=True)
    library = ", with a library of its own" if campaign.line else ""
    say(f"Campaign {campaign.name} ({campaign.env}){library}, targets: {', '.join(campaign.targets)}", "")
    print_table(_COLUMNS, [_row(view) for view in views], first=_FIRST, prose=["why"], whole=["state"])
    if proposals := registry.proposals.of(campaign.name):
        print_proposals(proposals)
    if (spent := registry.requests.spending(campaign.name)).requests:
        say("", spending_line(spent, campaign.spec.frontier))
    if damaged := damage(home, registry, FAMILIES, by_size=True):
        problem, remedy = in_words(home, damaged)
        say("", f"Damaged: {problem}. To repair it, {remedy}")
    return views


def print_end(home: Home, registry: Registry, campaign: Campaign) -> tuple[SkillView, ...]:
    """Print the campaign's table and the figures of the runs since its last start; return the views that it shows."""
    from flowrl_cli.views.summary import summary_lines
    from flowrl_cli.views.tables import say
    from flowrl_cli.views.view import latest_directory
    from flowrl_core.report.timeline import trace_of

    views = print_status(home, registry, campaign)
    traces, steps = [], {}
    for view in views:
        if view.figures.run is None:
            continue
        run = registry.skill_runs.get(view.figures.run)
        trace = trace_of(run, latest_directory(home, run.campaign, run.skill, run.ordinal).path)
        if run.campaign == campaign.name and (trace.first_line or 0.0) >= campaign.started_at:
            traces.append(trace)
        if view.looks and run.plan:
            names = [f"{step.skill} x{step.n}" if step.n > 1 else step.skill for step in run.plan.steps]
            steps[view.name] = list(zip(names, view.looks[-1].steps, strict=False))
    if any(view.figures.run is not None for view in views):
        say("", *summary_lines(traces, steps))
    return views


def _row(view: SkillView) -> tuple[object, ...]:
    from flowrl_cli.views.tables import percent, seconds

    figures = view.figures
    own = [merge.action for merge in figures.merges if merge.expert == figures.expert]
    others = Counter(merge.action for merge in figures.merges if merge.expert != figures.expert)
    return (
        view.name,
        view.state,
        figures.expert,
        figures.routed_frames or None,
        percent(figures.success),
        figures.success_lower_bound,
        view.threshold,
        figures.looks or None,
        ", ".join([*own, *(f"{count} {action}" for action, count in others.items())]) or None,
        seconds(view.seconds) if view.seconds is not None else None,
        view.remark or None,
    )


def _say_nothing_started(home: Home, as_json: bool) -> None:
    from flowrl_cli.checks.troubles import troubles
    from flowrl_cli.views.tables import print_json
    from flowrl_cli.views.view import status_json

    if as_json:
        print_json({**status_json(None, ()), "troubles": troubles(home)})
    else:
        print(f"No campaign has been started in {home.root}. Begin with `flowrl campaign --target SKILL`")
        _say_troubles(home)


def _say_troubles(home: Home) -> None:
    from flowrl_cli.checks.troubles import troubles
    from flowrl_cli.views.tables import say

    for trouble in troubles(home):
        say("", f"Trouble: {trouble}")
