"""One `flowrl campaign` from its checked request to its exit code: submit or attach, show, stop what was started."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowrl_cli import embedded
from flowrl_cli.care import Care
from flowrl_cli.configured import check_server, configured, credentials, wait_healthy
from flowrl_cli.inputs import existing_registry
from flowrl_cli.live import show
from flowrl_cli.processes import find, this_process
from flowrl_cli.record import Record, Server
from flowrl_cli.request import Request
from flowrl_cli.status import print_end, print_status
from flowrl_cli.tables import say
from flowrl_cli.view import campaign_knowledge, view_campaign
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.skills.goals import is_reached
from flowrl_core.stages.remarks import learned_before
from flowrl_core.storage.atomic import write_bytes
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records import Campaign
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.room import naming_no_room, shortage

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.orchestration.campaign_runs import CampaignRun

__all__ = ["run_campaign"]

_DRAW_SECONDS = 1.0
_SILENCE_SECONDS = 60.0
_MOST_STARTS = 3
_INTERRUPTED = 130


def run_campaign(request: Request, *, keep: bool) -> int:
    """Learns what the request asks for; 0 if all its targets are learned, 1 if not, 130 after Ctrl-C.

    Args:
        keep: leave the embedded server up at the end.

    Raises:
        InputError: the home cannot be written, the registry does not agree with the request, or a device is asked for
            that is not there; nothing was changed.
        ServiceError: no server answers, or it does not let us in; nothing was changed.
    """
    embedded.check_room(Home.from_environment())
    home, known = existing_registry()
    home.check_writable()
    if known is not None:
        with known:
            _check_widths(known, request)
            is_learned = _is_learned(known, request)
        if is_learned:
            return _finish_at_once(home, request)
    embedded.check_startable(home)
    if found := configured():
        wait_healthy(found)
        check_server(found.url, credentials())
    with Registry.open(home) as registry:
        # The flow begins the new start; here the request is only recorded, if it fits what is known under its name.
        campaign = registry.start_campaign(request.spec, request.knowledge.skills, is_new_start=False)
        _keep_knowledge(home, request)
        earlier = learned_before(registry, campaign, registry.figures(campaign.name))
        say(*(f"{name}: {earlier[name]}" for name in request.needs if name in earlier))
        if request.spec.frontier.kind != "knowledge" and request.scene.frontier.open:
            print(_estimate(request), flush=True)
        with _interruptible():
            return _start_and_follow(home, registry, campaign, request, keep=keep)


def _estimate(request: Request) -> str:
    """What the first question may cost, as things stand, and what the campaign may spend."""
    from flowrl_core.llm.drafts import draft
    from flowrl_core.stages.proposing import question_of
    from flowrl_core.stages.spending import estimate

    frontier = request.spec.frontier
    return estimate(frontier, draft(question_of(request.scene), frontier).input_tokens)


def _check_widths(registry: Registry, request: Request) -> None:
    """Refuse another width than that of an expert that a run would take up.

    Raises:
        InputError: both widths are told.
    """
    for name, config in request.configs.items():
        expert = registry.expert(request.scene.knowledge.skills[name].identity(request.spec.env))
        if expert is not None and expert.width != config.training.width:
            problem = f"the expert of {name} has width {expert.width}, not {config.training.width}"
            raise InputError("training.width", problem, f"Use --training.width {expert.width}, or another FLOWRL_HOME")


def _is_learned(registry: Registry, request: Request) -> bool:
    known, env = request.scene.knowledge, request.spec.env
    learned = [name for name, skill in known.skills.items() if registry.bundle(skill.identity(env)) is not None]
    return all(is_reached(known, target, learned) for target in request.spec.targets)


def _finish_at_once(home: Home, request: Request) -> int:
    with Registry.open(home) as registry:
        campaign = registry.start_campaign(request.spec, request.knowledge.skills)
        _keep_knowledge(home, request)
        print(f"Nothing to do: all targets of campaign {campaign.name} are learned")
        print_status(home, registry, campaign)
    return 0


def _keep_knowledge(home: Home, request: Request) -> None:
    if request.knowledge_file is not None:
        write_bytes(home.knowledge_file(request.spec.knowledge), request.knowledge_file)


def _start_and_follow(home: Home, registry: Registry, campaign: Campaign, request: Request, *, keep: bool) -> int:
    if little := shortage(home):
        _complain(little)
    try:
        server = embedded.up(home, keep=keep, say=lambda text: print(f"{text} ...", file=sys.stderr, flush=True))
        print(f"UI: {server.ui}", flush=True)
        with embedded.connected(server), naming_no_room(home):
            return _follow(home, registry, campaign, request, server)
    finally:
        embedded.leave(home)


def _follow(home: Home, registry: Registry, campaign: Campaign, request: Request, server: Server) -> int:
    # Prefect takes two seconds to import: the address above need not wait for it.
    from tasks.orchestration.campaign_runs import start_campaign_run

    for _ in range(_MOST_STARTS):
        run = asyncio.run(start_campaign_run(registry.uuid, request.spec))
        print("attached to the run under way" if run.attached else "submitted", flush=True)
        try:
            end = asyncio.run(_show_until_end(home, registry, campaign, server, run))
        except KeyboardInterrupt:
            return _interrupted(home, campaign, server, run)
        if not _is_unfinished(home, registry, request, run, end.name or ""):
            break
    print_end(home, registry, registry.campaign(campaign.name))
    known = campaign_knowledge(registry, campaign)
    learned = [name for name, fact in registry.facts(campaign.name).items() if fact.learned]
    missed = [target for target in request.spec.targets if not is_reached(known, target, learned)]
    if missed:
        print(f"Not learned: {', '.join(missed)} (the campaign's run ended {end.name}: {end.message})")
    return 1 if missed else 0


async def _show_until_end(
    home: Home, registry: Registry, campaign: Campaign, server: Server, run: CampaignRun
) -> State:
    """The run's final state, once it has ended; until then the campaign is shown and the server kept up."""
    watching = asyncio.create_task(_until_end(run, server))
    care = Care(home, server, say=_complain)
    with show(server.ui) as draw:
        while True:
            has_ended = watching.done()
            draw(view_campaign(home, registry, campaign), registry.proposals(campaign.name))
            if has_ended:
                return await watching
            await care.take()
            await asyncio.wait([watching], timeout=_DRAW_SECONDS)


def _interrupted(home: Home, campaign: Campaign, server: Server, run: CampaignRun) -> int:
    """What Ctrl-C means: the end of what this command started, or only of looking on."""
    from tasks.orchestration.campaign_runs import cancel_campaign_run

    if not server.is_embedded or _is_needed_by_others(home):
        print(f"Detached: campaign {campaign.name} goes on. Run the same command again to attach", flush=True)
        return _INTERRUPTED
    print("Stopping: runs save a checkpoint (Ctrl-C again: at once) ...", flush=True)
    asyncio.run(cancel_campaign_run(run))
    print("Stopped. Run the same command again to go on", flush=True)
    return _INTERRUPTED


async def _until_end(run: CampaignRun, server: Server) -> State:
    """The final state of the campaign's run.

    Raises:
        ServiceError: the server was silent for too long; the runs go on.
    """
    from tasks.orchestration.campaign_runs import watch_campaign_run

    answered = time.monotonic()
    async for state in watch_campaign_run(run):
        if state is not None:
            answered = time.monotonic()
            if state.is_final():
                return state
        elif time.monotonic() - answered > _SILENCE_SECONDS:
            break
    raise ServiceError(f"{server.url} does not answer any more; the runs go on. Run the same command again to attach")


def _is_unfinished(home: Home, registry: Registry, request: Request, run: CampaignRun, end: str) -> bool:
    """Whether what was asked for needs another start.

    A run that was found under way knows neither added targets nor skills to retry; one that crashed has left its skills
    to the next. What somebody has cancelled stays so, and what a full disk has ended.
    """
    if end in ("Cancelled", "NoRoom") or not (run.attached or end == "Crashed"):
        return False
    views = view_campaign(home, registry, registry.campaign(request.spec.campaign))
    return bool(run.attached and request.spec.retry) or any(view.state in ("ready", "submitted") for view in views)


def _complain(text: str) -> None:
    print(f"flowrl: {text}", file=sys.stderr, flush=True)


def _is_needed_by_others(home: Home) -> bool:
    """Whether the embedded Prefect stays up when this command leaves: asked to be kept, or used by another command."""
    record = Record.load(home)
    if record is None:
        return False
    me = this_process()
    return record.keep or any(find(user) for user in record.users if user.pid != me.pid)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Within the block a request to end, or a terminal that closes, is as good as Ctrl-C."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
