"""One `flowrl campaign` from its checked request to its exit code: submit or attach, show, stop what was started."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from flowrl_cli.commands.status import print_end, print_status
from flowrl_cli.process.signals import Interrupted, audience, check, deferred, run
from flowrl_cli.request.campaign import Request
from flowrl_cli.request.inputs import existing_registry
from flowrl_cli.server import embedded
from flowrl_cli.server.care import Care
from flowrl_cli.server.configured import check_server, configured, credentials, wait_healthy
from flowrl_cli.server.connection import asking, connected
from flowrl_cli.server.record import Server
from flowrl_cli.stopping import stop_campaign
from flowrl_cli.views.live import show
from flowrl_cli.views.summary import how_to_go_on, outcome_lines
from flowrl_cli.views.tables import say
from flowrl_cli.views.view import campaign_knowledge, view_campaign
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.skills.frontier import prerequisites
from flowrl_core.skills.goals import is_reached
from flowrl_core.stages.skill.remarks import learned_before
from flowrl_core.stages.upkeep.families import FAMILIES
from flowrl_core.storage.atomic import write_bytes
from flowrl_core.storage.damage import in_words
from flowrl_core.storage.families import damage
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.room import naming_no_room, shortage
from tasks.orchestration.devices.slots import survey_here

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.campaign.campaign_runs import CampaignRun

__all__ = ["run_campaign"]

_DRAW_SECONDS = 1.0
_SILENCE_SECONDS = 60.0
_CHANGE_SECONDS = 0.2
_MOST_STARTS = 3


def run_campaign(request: Request, *, keep: bool) -> int:
    """Run the requested campaign; return 0 if all its targets are learned, 1 if not, else `Interrupted.code`.

    Args:
        keep: leave the embedded server up at the end.

    Raises:
        InputError: the home is not writable, the registry conflicts with the request, or a requested device does not
            exist; nothing was changed.
        ServiceError: no server answers, or it denies access; nothing was changed.
    """
    home, known = existing_registry()
    home.check_writable()
    embedded.check_room(home)
    if known is not None:
        with known:
            _check_widths(known, request)
            is_learned = _is_learned(known, request)
            damaged = damage(home, known, FAMILIES, by_size=True)
        if is_learned:
            return _finish_at_once(home, request)
        if damaged:
            problem, remedy = in_words(home, damaged)
            print(
                f"note: damaged: {problem}. Runs that need it use an older version or fail: {remedy}", file=sys.stderr
            )
    embedded.check_startable(home)
    if found := configured():
        wait_healthy(found)
        check_server(found.url, credentials())
    with Registry.open(home) as registry:
        # The flow begins the new start; here the request is only recorded, if it agrees with the campaign of its name.
        campaign = _record(home, registry, request)
        earlier = learned_before(registry, campaign, registry.skills.figures(campaign.name))
        say(*(f"{name}: {earlier[name]}" for name in request.needs if name in earlier))
        if request.spec.frontier.kind != "knowledge" and request.context.frontier.open:
            print(_estimate(request), flush=True)
        return _start_and_follow(home, registry, campaign, request, keep=keep)


def _estimate(request: Request) -> str:
    """Return a line with the estimated cost of the first question and the campaign's spending limit."""
    from flowrl_core.llm.drafts import draft
    from flowrl_core.stages.proposals.propose import question_of
    from flowrl_core.stages.proposals.spending import estimate

    frontier = request.spec.frontier
    return estimate(frontier, draft(question_of(request.context), frontier).input_tokens)


def _check_widths(registry: Registry, request: Request) -> None:
    """Reject a width that differs from that of an expert that a run would resume.

    Raises:
        InputError: names both widths.
    """
    for name, config in request.configs.items():
        identity = request.context.knowledge.skills[name].identity(request.spec.env)
        expert = registry.library.expert(identity, line=request.spec.line)
        if expert is not None and expert.width != config.training.width:
            problem = f"the expert of {name} has width {expert.width}, not {config.training.width}"
            remedy = f"Use {expert.width}, or another campaign name, with a library of its own (--fresh)"
            raise InputError("training.width", problem, remedy)


def _is_learned(registry: Registry, request: Request) -> bool:
    known, env, line = request.context.knowledge, request.spec.env, request.spec.line
    identities = {name: skill.identity(env) for name, skill in known.skills.items()}
    learned = [name for name, one in identities.items() if registry.library.bundle(one, line=line) is not None]
    return all(is_reached(known, target, learned) for target in request.spec.targets)


def _finish_at_once(home: Home, request: Request) -> int:
    with Registry.open(home) as registry:
        _record(home, registry, request)
        campaign = registry.campaigns.begin_start(request.spec)
        print(f"Nothing to do: all targets of campaign {campaign.name} are learned")
        print_status(home, registry, campaign)
    return 0


def _record(home: Home, registry: Registry, request: Request) -> Campaign:
    campaign = registry.campaigns.record(request.spec, request.knowledge.skills, request.named)
    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    if request.knowledge_file is not None:
        write_bytes(home.knowledge_file(request.spec.knowledge), request.knowledge_file)
    return campaign


def _start_and_follow(home: Home, registry: Registry, campaign: Campaign, request: Request, *, keep: bool) -> int:
    server, is_submitted = None, False
    try:
        if little := shortage(home):
            _complain(little)
        server = embedded.up(home, keep=keep, campaign=campaign.name, say=_say)
        with audience():
            print(f"UI: {server.ui}", flush=True)
            if server.is_embedded:
                say(*(f"Note: {remark}" for remark in survey_here().remarks))
        is_submitted = True  # from here on it may be submitted
        with connected(server), naming_no_room(home):
            return _follow(home, registry, campaign, request, server)
    except Interrupted as asked:
        return stop_campaign(home, registry, campaign.name, server, asked, submitted=is_submitted)
    finally:
        with deferred() as again:
            embedded.leave(home, is_urgent=again, say=_complain)


def _follow(home: Home, registry: Registry, campaign: Campaign, request: Request, server: Server) -> int:
    # Prefect takes two seconds to import: the address above is printed before that.
    from tasks.campaign.campaign_runs import start_campaign_run

    for _ in range(_MOST_STARTS):
        with asking(server, "the campaign's run"):
            started = run(start_campaign_run(registry.uuid, request.spec))
        with audience():
            print("attached to the run in progress" if started.attached else "campaign submitted", flush=True)
        end = run(_show_until_end(home, registry, campaign, server, started))
        is_unfinished = _is_unfinished(home, registry, request, started, end.name or "")
        if server.is_embedded and (is_unfinished or end.is_crashed()):
            run(_check_not_stopped(home))
        if not is_unfinished:
            break
    views = print_end(home, registry, registry.campaigns.get(campaign.name))
    known = campaign_knowledge(registry, campaign)
    say("", *outcome_lines(views, prerequisites(known, [view.name for view in views if view.state != "learned"])))
    learned = [name for name, fact in registry.skills.facts(campaign.name).items() if fact.learned]
    missed = [target for target in request.spec.targets if not is_reached(known, target, learned)]
    if missed:
        print(f"Not learned: {', '.join(missed)} (the campaign's run ended as {end.name}: {end.message})")
    say(*how_to_go_on(campaign.name, views))
    return 1 if missed else 0


async def _check_not_stopped(home: Home) -> None:
    """Wait while another command starts or stops the embedded Prefect, then check that it has not been stopped.

    Raises:
        ServiceError: `flowrl down` stopped it, and the campaign's run with it.
    """
    while embedded.is_being_changed(home):
        await asyncio.sleep(_CHANGE_SECONDS)
    embedded.check_not_stopped(home)


async def _show_until_end(
    home: Home, registry: Registry, campaign: Campaign, server: Server, run: CampaignRun
) -> State:
    """Return the run's final state once it has ended; until then, show the campaign and keep the server up."""
    watching = asyncio.create_task(_until_end(run, server))
    care = Care(home, server, say=_complain)
    with show(server.ui) as draw:
        while True:
            check()
            has_ended = watching.done()
            draw(view_campaign(home, registry, campaign), registry.proposals.of(campaign.name))
            if has_ended:
                return await watching
            await care.take()
            await asyncio.wait([watching], timeout=_DRAW_SECONDS)


async def _until_end(run: CampaignRun, server: Server) -> State:
    """Return the final state of the campaign's run.

    Raises:
        ServiceError: the server was silent for too long; runs on a configured server continue.
    """
    from tasks.campaign.campaign_runs import watch_campaign_run

    answered = time.monotonic()
    async for state in watch_campaign_run(run):
        if state is not None:
            answered = time.monotonic()
            if state.is_final():
                return state
        elif time.monotonic() - answered > _SILENCE_SECONDS:
            break
    what = "resume" if server.is_embedded else "attach: the runs continue"
    raise ServiceError(f"{server.url} no longer answers. Run the same command again to {what}")


def _is_unfinished(home: Home, registry: Registry, request: Request, run: CampaignRun, end: str) -> bool:
    """Whether the request needs another start.

    A run that was already under way does not know of added targets or skills to retry; one that crashed leaves its
    skills to the next. A run that was cancelled, or ended by a full disk, is not repeated.
    """
    if end in ("Cancelled", "NoRoom") or not (run.attached or end == "Crashed"):
        return False
    views = view_campaign(home, registry, registry.campaigns.get(request.spec.campaign))
    return bool(run.attached and request.spec.retry) or any(view.state in ("ready", "submitted") for view in views)


def _complain(text: str) -> None:
    with audience():
        print(f"flowrl: {text}", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    with audience():
        print(f"{text} ...", file=sys.stderr, flush=True)
