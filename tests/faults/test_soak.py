"""Campaign after campaign while processes are killed or stopped at random (`make soak`); every invariant after each.

SECONDS (600) bounds it, SEED repeats the sequence of disturbances, though not the moments at which they strike.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "flows"))

import httpx
import invariants
from faults import Disturbed
from prefect.exceptions import PrefectHTTPStatusError

from flowrl_cli.server import embedded
from flowrl_cli.server.processes import marked
from flowrl_cli.server.record import Record
from flowrl_core.errors import ServiceError
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.campaign.campaign_runs import start_campaign_run, watch_campaign_run

SECONDS = float(os.environ.get("SECONDS", 600))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
ROUND_S = 600.0
HEAL_S = 5.0  # as often as `flowrl campaign` does
MOST = 5  # disturbances of a campaign; then it is left in peace, so that it can end
SILENT = (httpx.TransportError, PrefectHTTPStatusError, ServiceError, TimeoutError)


@dataclass
class Trouble:
    """Kills or stops a process of the home now and then, in a thread of its own."""

    home: Home
    random: random.Random
    began: float = field(default_factory=time.monotonic)
    done: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def made(self):
        """Trouble for the block; nobody is stopped any more after it."""
        thread = threading.Thread(target=self._make, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _make(self):
        for _ in range(MOST):
            if self._over.wait(self.random.uniform(1.0, 10.0)):
                return
            kind = self.random.choice(["run", "run", "campaign", "workers", "server"])
            seconds = self.random.choice([0.0, 0.0, self.random.uniform(1.0, 15.0)])
            victims = self._of(kind)
            if victims:
                self._disturb(kind, self.random.choice(victims), seconds)

    def _of(self, kind: str) -> list[psutil.Process]:
        record = Record.load(self.home)
        if kind in ("workers", "server"):
            return [process] if (process := record.alive(kind)) else []
        known = {process.pid for process in record.processes}
        wanted = "campaign" if kind == "campaign" else "skill"
        return [process for process in marked(record.mark) if process.pid not in known and _flow(process) == wanted]

    def _disturb(self, kind: str, victim: psutil.Process, seconds: float):
        self._note(f"kill -9 {kind}" if not seconds else f"stop {kind} for {seconds:.0f} s")
        with contextlib.suppress(psutil.NoSuchProcess):
            if not seconds:
                return victim.kill()
            victim.suspend()
            self._over.wait(seconds)
            victim.resume()

    def _note(self, text: str):
        self.done.append(text)
        print(f"  {time.monotonic() - self.began:6.1f} s  {text}", flush=True)


def _flow(process: psutil.Process) -> str:
    """Which flow file a process runs."""
    with contextlib.suppress(psutil.Error):
        return Path(process.environ().get("PREFECT__FLOW_ENTRYPOINT", "").partition(":")[0]).stem
    return ""


async def follow(home: Home, registry: Registry, wanted: CampaignSpec):
    """The state in which a campaign's run ends, kept up meanwhile as `flowrl campaign` does it."""
    run = await start_campaign_run(registry.uuid, wanted)

    async def last():
        async for state in watch_campaign_run(run):
            found = state
        return found

    watching = asyncio.create_task(last())
    try:
        while not (await asyncio.wait([watching], timeout=HEAL_S))[0]:
            await asyncio.to_thread(embedded.heal, home)
    finally:
        watching.cancel()
    return await watching


def reach_the_end(home: Home, registry: Registry, wanted: CampaignSpec):
    """Start the campaign again and again, until all its targets are learned."""
    deadline = time.monotonic() + ROUND_S
    while True:
        assert time.monotonic() < deadline, f"{wanted.campaign} does not end"
        try:
            embedded.heal(home)
            end = asyncio.run(asyncio.wait_for(follow(home, registry, wanted), deadline - time.monotonic()))
        except SILENT as exc:
            print(f"          the server is away: {exc!r}", flush=True)
            continue
        if end.is_completed():
            return
        print(f"          the campaign's run ended {end.name}: {end.message}", flush=True)


@pytest.mark.timeout(SECONDS + 2 * ROUND_S)
def test_campaigns_end_well_whatever_dies(server):
    print(f"\nSECONDS={SECONDS:.0f} SEED={SEED}", flush=True)
    chance, began, disturbances = random.Random(SEED), time.monotonic(), 0
    with Registry.open(server.home) as registry:
        disturbed = Disturbed(server.home, registry, server.crash_file)
        while time.monotonic() < began + SECONDS:
            wanted, start = disturbed.wanted(), time.monotonic()
            print(f"{wanted.campaign}", flush=True)
            trouble = Trouble(server.home, chance)
            with trouble.made():
                reach_the_end(server.home, registry, wanted)
            embedded.heal(server.home)
            invariants.check(server.home, registry, wanted.campaign)
            disturbances += len(trouble.done)
            print(f"  ended well after {time.monotonic() - start:.0f} s", flush=True)
        print(
            f"{len(registry.campaigns.all())} campaigns, {disturbances} disturbances, every invariant held", flush=True
        )
