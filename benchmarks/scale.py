"""Scale: a campaign of many skills that do nothing, through a real server, worker and process per run.

Skills use the corridor's vocabulary: fifteen that provide an item each and need earlier ones, at random, and many that
need some of the items. So far more skills are ready than there are slots, and a run starts when another has ended. Only
the work of a run is replaced, where the deployment names its flow (`scale_flows.py`).

    python benchmarks/scale.py [--skills N] [--slots N] [--database sqlite|postgres] [--window N]
                               [--home DIRECTORY] [--json]

The output has medians of the first and of the last runs (`--window`), and their ratio, which must be at most 1.5:

    begun      a slot is free and all that the skill needs is learned -> the campaign has begun its attempt
    submitted  -> its flow run is on the server
    taken      -> a worker has taken it (Pending)
    running    -> its flow runs: its process is started and Prefect imported
    start      all of these
    work       running -> its bundle is committed
    requests   that the campaign's process has sent to the server, per run
    memory     of the campaign's process (resident, MB)

Then how often a database was locked, by the logs of the server, the workers and the campaign; and how long a restarted
campaign takes to read its state.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate

from flowrl_cli.server import embedded
from flowrl_cli.server.connection import connected
from flowrl_core.skills.frontier import prerequisites
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.skill_states import derive
from flowrl_core.specs.campaign import CampaignSpec, LimitsSpec
from flowrl_core.storage.atomic import write_text
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.records.runs import Attempt
from flowrl_core.storage.registry import Registry
from tasks.campaign.campaign_runs import CAMPAIGN, start_campaign_run, watch_campaign_run
from tasks.orchestration.runs.submission import find_runs
from tasks.orchestration.runs.tags import campaign_tags
from tasks.skill.submission import SKILL, SKILL_FLOW

__all__ = ["Measured", "knowledge", "measure"]

HERE = Path(__file__).resolve().parent
REQUESTS = "FLOWRL_SCALE_REQUESTS"
"""As in `scale_flows.py`, which is not imported here: importing it would count this process's requests, too."""
ITEMS = "abcdefghijklmno"
PARTS = ("begun", "submitted", "taken", "running", "start", "work")
LOCKED = "database is locked"
NAME = "scale"
_SAMPLE_S = 1.0


@dataclass(frozen=True)
class Run:
    """The times (seconds since the epoch) at which one skill's run could have begun, and each part ended."""

    skill: str
    free: float
    begun: float
    submitted: float
    taken: float
    running: float
    ended: float

    def seconds(self) -> dict[str, float]:
        """Return the length of each part."""
        return {
            "begun": self.begun - self.free,
            "submitted": self.submitted - self.begun,
            "taken": self.taken - self.submitted,
            "running": self.running - self.taken,
            "start": self.running - self.free,
            "work": self.ended - self.running,
        }


@dataclass(frozen=True)
class Measured:
    """A campaign that has ended.

    Attributes:
        runs: in the order in which they began; without those that had to wait for nothing.
        requests: times at which the campaign's process sent a request.
        memory: time -> MB of the campaign's process.
        locked: log lines about a locked database.
        resumed: seconds to read the state of the ended campaign.
    """

    runs: tuple[Run, ...]
    requests: tuple[float, ...]
    memory: Mapping[float, float]
    locked: int
    seconds: float
    resumed: float

    def rows(self, window: int) -> dict[str, tuple[float, float]]:
        """Return by part the median of the first and of the last runs."""
        first, last = self.runs[:window], self.runs[-window:]
        rows = {
            part: (_median(run.seconds()[part] for run in first), _median(run.seconds()[part] for run in last))
            for part in PARTS
        }
        rows["requests"] = (self._requests(first), self._requests(last))
        rows["memory"] = (self._memory(first), self._memory(last))
        return rows

    def _requests(self, runs: Sequence[Run]) -> float:
        return sum(runs[0].begun <= at < runs[-1].begun for at in self.requests) / max(1, len(runs) - 1)

    def _memory(self, runs: Sequence[Run]) -> float:
        return _median(mb for at, mb in self.memory.items() if runs[0].begun <= at <= runs[-1].ended)


def knowledge(num_skills: int, seed: int = 0) -> str:
    """Return TOML of `num_skills` skills with random needs among them."""
    chance = random.Random(seed)
    items = ITEMS[: max(1, min(len(ITEMS), num_skills // 2))]
    lines = ['env = "corridor"']
    for number in range(num_skills):
        brings = items[number] if number < len(items) else "p"
        earlier = items[: min(number, len(items))]
        needs = chance.sample(earlier, min(len(earlier), chance.randint(1, 3)))
        lines += [
            f"[skills.s{number}]",
            'description = "Nothing"',
            f'done = "since.{brings} >= n"',
            f'reward = "{1 + number / 1e4} * gained.{brings}"',
            f'gain = {{ "inv.{brings}" = "n" }}',
            f"requirements = {{ {', '.join(f'{_quoted(item)} = 1' for item in sorted(needs))} }}",
        ]
    return "\n".join(lines) + "\n"


def measure(home: Home, num_skills: int, slots: int, directory: Path) -> Measured:
    """Run a campaign to its end, through the server that Prefect's settings name; its workers serve this home.

    Args:
        slots: number of parallel runs.
        directory: an empty directory for records.
    """
    file, requests = home.knowledge_file("scale.toml"), directory / "requests"
    write_text(file, knowledge(num_skills))
    requests.mkdir()
    known = load_knowledge(file)
    limits = LimitsSpec(max_parallel=slots)
    spec = CampaignSpec(campaign=NAME, env="corridor", targets=list(known.skills), knowledge=file.name, limits=limits)
    with Registry.open(home) as registry, _replaced_flows(requests):
        began = time.monotonic()
        memory, end, run = asyncio.run(_follow(registry, spec))
        seconds = time.monotonic() - began
        if end != "Completed":
            raise RuntimeError(f"the campaign's run ended {end}: see the runs in {home.runs}")
        resumed = _resume(registry, known)
        times = [float(line.split()[0]) for line in (requests / str(run)).read_text().splitlines()]
        runs = asyncio.run(_runs(registry, known, slots))
    locked = sum(path.read_text(errors="replace").count(LOCKED) for path in home.prefect.glob("*.log"))
    return Measured(tuple(runs), tuple(times), memory, locked, seconds, resumed)


@contextlib.contextmanager
def _replaced_flows(requests: Path) -> Iterator[None]:
    """Within the block the deployments run the flows of `scale_flows.py`."""
    before = asyncio.run(_deploy({}))
    entrypoint = HERE / "scale_flows.py"
    replaced: dict[str, Any] = {}
    for name, function in ((CAMPAIGN, "campaign"), (SKILL, "train_skill")):
        told = {"PREFECT__FLOW_ENTRYPOINT": f"{entrypoint}:{function}", REQUESTS: str(requests)}
        replaced[name] = (told["PREFECT__FLOW_ENTRYPOINT"], {**before[name][1], "env": told})
    asyncio.run(_deploy(replaced))
    try:
        yield
    finally:
        asyncio.run(_deploy(before))


async def _deploy(wanted: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Update the two deployments as wanted; return their previous entrypoints and job variables."""
    before = {}
    async with get_client() as client:
        for name in (CAMPAIGN, SKILL):
            deployment = await client.read_deployment_by_name(name)
            before[name] = (str(deployment.entrypoint), dict(deployment.job_variables or {}))
            if name in wanted:
                entrypoint, job = wanted[name]
                await client.update_deployment(
                    deployment.id, DeploymentUpdate(entrypoint=entrypoint, job_variables=job)
                )
    return before


async def _follow(registry: Registry, spec: CampaignSpec) -> tuple[dict[float, float], str, Any]:
    """Return the memory of the campaign's process over time, the name of its last state, and its run's id."""
    run = await start_campaign_run(registry.uuid, spec)
    memory: dict[float, float] = {}
    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(str(run.id), memory, over), daemon=True)
    sampler.start()
    last = None
    async for state in watch_campaign_run(run):
        last = state or last
    over.set()
    sampler.join()
    return memory, last.name if last and last.name else "", run.id


def _sample(run: str, memory: dict[float, float], over: threading.Event) -> None:
    process: psutil.Process | None = None
    while not over.wait(_SAMPLE_S):
        with contextlib.suppress(psutil.Error):
            process = process or next((one for one in psutil.process_iter() if _runs_flow(one, run)), None)
            if process is not None:
                memory[time.time()] = process.memory_info().rss / 1e6


def _runs_flow(process: psutil.Process, run: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("PREFECT__FLOW_RUN_ID") == run
    return False


def _resume(registry: Registry, known: Any) -> float:
    """Return the seconds until a restarted campaign knows what is ready."""
    began = time.monotonic()
    derive(known, known.skills, registry.skills.facts(NAME))
    return time.monotonic() - began


async def _runs(registry: Registry, known: Any, slots: int) -> list[Run]:
    needs = prerequisites(known, known.skills)
    skills = registry.skills.of(NAME)
    ended = {name: registry.skill_runs.of(record.identity)[-1].ended_at or 0.0 for name, record in skills.items()}
    order = sorted(ended.values())
    found = []
    for number, (attempt, at) in enumerate(await _attempts(registry)):
        if number < slots:
            continue
        free = max([order[number - slots], *(ended[name] for name in needs[attempt.name])])
        ways = (at["SUBMITTED"], at["PENDING"], at["RUNNING"], ended[attempt.name])
        found.append(Run(attempt.name, free, attempt.created_at, *ways))
    return found


async def _attempts(registry: Registry) -> list[tuple[Attempt, dict[str, float]]]:
    """Return the attempts in order, each with the times at which its flow run first entered each type of state."""
    found = []
    async with get_client() as client:
        for run in await find_runs(client, campaign_tags(registry.uuid, NAME), flow=SKILL_FLOW):
            assert run.created is not None
            times = {"SUBMITTED": run.created.timestamp()}
            for state in await client.read_flow_run_states(run.id):
                times.setdefault(state.type.value, state.timestamp.timestamp())
            found.append((registry.attempts.get(run.parameters["attempt"]), times))
    return sorted(found, key=lambda pair: pair[0].id)


def _quoted(item: str) -> str:
    return f'"inv.{item}"'


def _median(values: Any) -> float:
    found = list(values)
    return statistics.median(found) if found else float("nan")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _databases(kind: str) -> Iterator[dict[str, str]]:
    if kind == "sqlite":
        yield {}
        return
    sys.path.append(str(HERE.parent / "tests"))
    import postgres_server

    with postgres_server.running() as server:
        registry, prefect = server.create(), server.create()
        yield {
            URL_VARIABLE: server.url(registry),
            "PREFECT_API_DATABASE_CONNECTION_URL": server.url(prefect, driver="asyncpg"),
        }


def _print(measured: Measured, window: int) -> None:
    print(f"{'':12}{f'first {window}':>12}{f'last {window}':>12}{'ratio':>8}")
    for name, (first, last) in measured.rows(window).items():
        print(f"{name:12}{first:12.2f}{last:12.2f}{last / first:8.2f}")
    print(f"ended after {measured.seconds:.0f} s; a database was locked {measured.locked} times")
    print(f"a campaign that is started again reads its state in {measured.resumed:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skills", type=int, default=500)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--home", type=Path, help="a new directory that is kept, for its logs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, _databases(options.database) as databases:
        home = Home(options.home or Path(directory) / "home")
        with _environment({**databases, "FLOWRL_SLOTS": str(options.slots)}):
            server = embedded.up(home, keep=True)
            try:
                with connected(server):
                    measured = measure(home, options.skills, options.slots, Path(directory))
            finally:
                embedded.down(home)
    window = min(options.window, len(measured.runs) // 2)
    if options.json:
        print(json.dumps({"rows": measured.rows(window), "locked": measured.locked, "seconds": measured.seconds}))
    else:
        _print(measured, window)


if __name__ == "__main__":
    main()
