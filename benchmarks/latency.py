"""From ready to learning: how long a skill waits once the skill that it needs is learned, part by part.

Chains of Craftax-Classic skills are learned by campaigns as `flowrl campaign` runs them, one after another: an embedded
server, workers, and a process per run, in a home of its own. Each skill needs the one before it and takes one update
and one look, so the figures are about starts. One run at a time, with the default shapes. The first run compiles; it
depends on no other skill, so the table does not include it.

    python benchmarks/latency.py [--json] [--chains N] [--length N] [--home DIRECTORY]

The parts, in order; a mark is a time that the run's process recorded itself (`timing.json`):

    settling    verdict committed -> the dependency's flow run Completed (its records archived, its state reported)
    event       -> the campaign has begun the dependant's attempt (woken, the registry and Prefect read)
    submission  -> its flow run is on the server
    worker      -> a worker has taken it (Pending)
    process     -> its process exists
    imports     -> its flow run is Running (interpreter, Prefect and our flow imported, the run read)
    engine      -> mark first_line: the first statement of our flow
    prepare     -> mark prepared: planned, seeded and sealed
    libraries   -> mark imported: what training needs is imported
    cache       -> mark ready: the functions and the first worlds read from their files, the seed loaded
    update      -> mark first_update: XLA's code loaded, a rollout and an update run

`cpu` is the processor time of the run's process in that part and in preceding parts without an entry: other load on the
machine lengthens the parts, but hardly changes that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from flowrl_cli.server import embedded
from flowrl_cli.server.connection import connected
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from flowrl_core.storage.atomic import write_text
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

PARTS = (
    "settling",
    "event",
    "submission",
    "worker",
    "process",
    "imports",
    "engine",
    "prepare",
    "libraries",
    "cache",
    "update",
)
TOTALS = {"learned -> first line": "engine", "learned -> first update": "update"}
_MARKS = {
    "engine": "first_line",
    "prepare": "prepared",
    "libraries": "imported",
    "cache": "ready",
    "update": "first_update",
}


@dataclass(frozen=True)
class Start:
    """The start of one dependant, up to its first update.

    Attributes:
        at: when its dependency was `learned`, then when each part ended, by name (unix seconds). A part whose mark is
            missing is counted in the next.
        cpu: processor time that its process had used at the end of each part, by name (seconds).
        compilations: functions that its process compiled rather than loaded.
    """

    skill: str
    at: Mapping[str, float]
    cpu: Mapping[str, float]
    compilations: int

    def seconds(self) -> dict[str, float]:
        """Return the length of each recorded part."""
        return differences(self.at, ("learned", *PARTS))

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time of each part."""
        return differences({"nothing": 0.0, **self.cpu}, ("nothing", *PARTS))


def differences(ends: Mapping[str, float], order: Sequence[str]) -> dict[str, float]:
    """Return the difference of each value to the preceding one that exists."""
    names = [name for name in order if name in ends]
    return {name: ends[name] - ends[before] for before, name in pairwise(names)}


def knowledge(chains: int, length: int) -> str:
    """Return TOML of chains of skills.

    The k-th of a chain waits until the player has become thirsty k times, which takes about twenty steps each and is
    always learned.
    """
    flags = iter([fluent.name for fluent in CRAFTAX_CLASSIC.fluents if fluent.kind == "flag"])
    lines = ['env = "craftax-classic"']
    for chain in range(chains):
        needed = None
        for number in range(1, length + 1):
            flag = next(flags)
            lines += [
                f"[skills.{name_of(chain, number)}]",
                'description = "Grow thirsty"',
                f'done = "drink <= {9 - number}"',
                'reward = "0.1 - 0.1 * d.drink"',
                *([f'requirements = {{ "{needed}" = 1 }}'] if needed else []),
                f'gain = {{ "{flag}" = 1 }}',
            ]
            needed = flag
    return "\n".join(lines) + "\n"


def name_of(chain: int, number: int) -> str:
    return f"wait_{'abcdefgh'[chain]}{number}"


def specification(source: Path, chain: int, length: int) -> CampaignSpec:
    training = TrainingSpec()
    return CampaignSpec(
        campaign=f"chain-{chain}",
        targets=[name_of(chain, length)],
        knowledge=source.name,
        training=training.model_copy(update={"frames": training.num_envs * training.rollout_length}),
        evaluation=EvaluationSpec(threshold=0.01, episodes=training.num_envs, looks=1, min_frames=0),
    )


def measure(root: Path, chains: int, length: int) -> list[Start]:
    """Return the start of each skill that has a dependency; the home is `root`."""
    root.mkdir(parents=True, exist_ok=True)
    source = Home(root).knowledge_file("chains.toml")
    write_text(source, knowledge(chains, length))
    home = Home(root)
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "FLOWRL_"))]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = str(home.prefect)
    server = embedded.up(home, keep=True)
    try:
        with connected(server), Registry.open(home) as registry:
            return [start for chain in range(chains) for start in starts(home, registry, source, chain, length)]
    finally:
        embedded.down(home)


@dataclass(frozen=True)
class FlowRun:
    """The server's record of a skill's run: its attempt, and the states that it went through."""

    attempt: int
    states: Sequence[Any]

    def entered(self, kind: str) -> float:
        """Return when it first entered a state of this type, in unix seconds."""
        return float(min(state.timestamp.timestamp() for state in self.states if state.type.value == kind))


async def learn(registry: Registry, spec: CampaignSpec) -> dict[str, FlowRun]:
    """Run the campaign to its end; return the flow runs of its skills, by name."""
    from prefect.client.orchestration import get_client

    from tasks.campaign.campaign_runs import start_campaign_run, watch_campaign_run
    from tasks.orchestration.runs.submission import find_runs
    from tasks.orchestration.runs.tags import campaign_tags
    from tasks.skill.submission import SKILL_FLOW

    end = None
    async for state in watch_campaign_run(await start_campaign_run(registry.uuid, spec)):
        end = state or end
    if end is None or not end.is_completed():
        raise SystemExit(f"the campaign did not learn its targets: {end.message if end else 'no state'}")
    async with get_client() as client:
        runs = await find_runs(client, campaign_tags(registry.uuid, spec.campaign), flow=SKILL_FLOW)
        return {run.name: FlowRun(run.parameters["attempt"], await client.read_flow_run_states(run.id)) for run in runs}


def starts(home: Home, registry: Registry, source: Path, chain: int, length: int) -> Iterator[Start]:
    """Learn a chain; yield the start of each of its skills but the first."""
    spec = specification(source, chain, length)
    registry.campaigns.record(spec, load_knowledge(source).skills)
    flow_runs = asyncio.run(learn(registry, spec))
    figures = registry.skills.figures(spec.campaign)
    for number in range(2, length + 1):
        dependency, name = name_of(chain, number - 1), name_of(chain, number)
        learned, ordinal, flow_run = figures[dependency].ended_at, figures[name].ordinal, flow_runs[name]
        assert learned is not None and ordinal is not None
        directory = home.archived_run(spec.campaign, name, ordinal).path
        timing = json.loads((directory / "timing.json").read_text(encoding="utf-8"))
        marks = {part: mark for part, mark in _MARKS.items() if mark in timing}
        at = {
            "learned": learned,
            "settling": flow_runs[dependency].entered("COMPLETED"),
            "event": registry.attempts.get(flow_run.attempt).created_at,
            "submission": flow_run.entered("SCHEDULED"),
            "worker": flow_run.entered("PENDING"),
            "process": timing["process_started"],
            "imports": flow_run.entered("RUNNING"),
            **{part: timing[mark] for part, mark in marks.items()},
        }
        cpu = {part: timing["cpu_seconds"][mark] for part, mark in marks.items()}
        yield Start(name, at, cpu, timing["compilations"])


def table(starts: Sequence[Start]) -> list[dict[str, Any]]:
    """Return for every part and total, in seconds: median, 95th percentile, and median of the processor time."""
    parts = [
        row(part, values(part, map(Start.seconds, starts)), values(part, map(Start.cpu_seconds, starts)))
        for part in PARTS
    ]
    totals = [
        row(name, [start.at[end] - start.at["learned"] for start in starts], [start.cpu[end] for start in starts])
        for name, end in TOTALS.items()
    ]
    return parts + totals


def values(part: str, found: Iterable[Mapping[str, float]]) -> list[float]:
    return [one[part] for one in found if part in one]


def row(name: str, seconds: Sequence[float], cpu: Sequence[float]) -> dict[str, Any]:
    high = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else None
    figures = {"median": statistics.median(seconds) if seconds else None, "p95": high}
    figures["cpu"] = statistics.median(cpu) if cpu else None
    return {"part": name, "n": len(seconds)} | {key: value and round(value, 3) for key, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--chains", type=int, default=3, choices=range(1, 5), help="chains of skills")
    parser.add_argument("--length", type=int, default=5, choices=range(2, 6), help="skills of each chain")
    parser.add_argument("--home", type=Path, help="an empty directory to work in, which is kept")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server and the workers are stopped
    with tempfile.TemporaryDirectory(prefix="flowrl-latency-") as temporary:
        found = measure(arguments.home or Path(temporary), arguments.chains, arguments.length)
    rows = table(found)
    compilations = sum(start.compilations for start in found)
    if arguments.json:
        each = [{"skill": start.skill, "seconds": start.seconds(), "cpu": start.cpu_seconds()} for start in found]
        print(json.dumps({"rows": rows, "compilations": compilations, "starts": each}))
        return
    print(f"{len(found)} dependants, {os.cpu_count()} cores of {platform.processor() or platform.machine()}; seconds")
    columns = ("median", "p95", "cpu")
    print(f"{'part':24}  {'n':>3}" + "".join(f"{name:>9}" for name in columns))
    for one in rows:
        shown = "".join(f"{'-':>9}" if one[name] is None else f"{one[name]:9.2f}" for name in columns)
        print(f"{one['part']:24}  {one['n']:3}{shown}")
    print(f"functions that the dependants compiled: {compilations}")


if __name__ == "__main__":
    main()
