"""What holds after every campaign that has ended, whatever died meanwhile."""

from __future__ import annotations

import asyncio
import collections
import fcntl
import time

import psutil
import sqlalchemy as sa
from prefect.client.orchestration import get_client

from flowrl_cli.server.processes import marked
from flowrl_cli.server.record import Record
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.skills.skill_states import derive
from flowrl_core.storage.atomic import is_temporary
from flowrl_core.storage.database import make_engine, reading
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get
from tasks.orchestration.devices.slots import occupancy
from tasks.orchestration.runs.submission import find_runs
from tasks.orchestration.runs.tags import registry_tag

__all__ = ["check"]

_SOON_S = 30.0
_DECIDED = {"learned", "failed", "blocked_by_failed"}


def check(home: Home, registry: Registry, campaign: str, *, targets_learned: bool = True) -> None:
    """Fail the test if an invariant does not hold.

    Args:
        targets_learned: nothing but a fault stood between the campaign and its targets, and faults are no verdicts.
    """
    _every_skill_is_decided(home, registry, campaign, targets_learned)
    _nothing_was_learned_twice(registry)
    _soon(lambda: _runs_not_ended(registry), "flow runs that have not ended")
    _soon(lambda: _processes_left(home), "processes of runs")
    assert registry.attempts.outstanding(campaign) == []
    assert _locked(home) == [], "locks are held"
    _run_directories_are_archived(home, registry)
    _the_database_is_whole(home)
    _every_version_in_use_is_whole(home, registry)


def _every_skill_is_decided(home: Home, registry: Registry, name: str, targets_learned: bool) -> None:
    campaign = registry.campaigns.get(name)
    named = campaign.spec.knowledge
    knowledge = load_knowledge(home.knowledge_file(named) if named else shipped(campaign.env))
    states = derive(knowledge, campaign.targets, registry.skills.facts(name))
    assert set(states.values()) <= _DECIDED, states
    if targets_learned:
        assert {states[target] for target in campaign.targets} == {"learned"}, states


def _nothing_was_learned_twice(registry: Registry) -> None:
    learned: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for campaign in registry.campaigns.all():
        for record in registry.skills.of(campaign.name).values():
            runs = registry.skill_runs.of(record.identity, line=campaign.line)
            learned[record.name, record.identity, campaign.line] = sum(run.verdict == "learned" for run in runs)
    assert not {skill: times for skill, times in learned.items() if times > 1}
    experts = registry.library.experts()
    assert [expert.global_index for expert in experts] == list(range(len(experts)))


def _runs_not_ended(registry: Registry) -> list[str]:
    async def read():
        async with get_client() as client:
            tags = [registry_tag(registry.uuid)]
            found = [await find_runs(client, tags, flow=flow, only_live=True) for flow in ("campaign", "train-skill")]
        return [f"{run.name} {run.state.name}" for runs in found for run in runs]

    return asyncio.run(read())


def _processes_left(home: Home) -> list[str]:
    """Processes that were started for the home, other than its server and workers."""
    record = Record.load(home)
    if record is None:
        return []
    known = {process.pid for process in record.processes}
    return [_told(process) for process in marked(record.mark) if process.pid not in known]


def _told(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return str(process.pid)


def _locked(home: Home) -> list[str]:
    """Device slots and files of runs on which somebody has a lock."""
    held = [slot.name for slot, holder in occupancy() if holder is not None]
    for path in home.runs.rglob("*.lock"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


def _run_directories_are_archived(home: Home, registry: Registry) -> None:
    directories = [path for top in (home.runs, home.archive) for path in top.rglob("*") if path.is_dir()]
    assert not [path for path in directories if is_temporary(path)], "unfinished work of a process that was killed"
    for campaign in registry.campaigns.all():
        for record in registry.skills.of(campaign.name).values():
            for run in registry.skill_runs.of(record.identity):
                where = (run.campaign, run.skill, run.ordinal)
                assert run.verdict is None or not home.run_directory(*where).path.exists(), where
                if run.verdict == "learned":
                    assert home.archived_run(*where).config.is_file(), where


def _the_database_is_whole(home: Home) -> None:
    engine = make_engine(home.registry_url)
    if engine.dialect.name == "sqlite":
        with reading(engine) as tx:
            assert tx.execute(sa.text("PRAGMA integrity_check")).scalars().all() == ["ok"]
            assert tx.execute(sa.text("PRAGMA foreign_key_check")).all() == []
    engine.dispose()


def _every_version_in_use_is_whole(home: Home, registry: Registry) -> None:
    contents = set()
    for expert in registry.library.experts():
        if expert.head is not None:
            contents.add(expert.head.content)
        for bundle in registry.library.bundles_with(expert.global_index):
            contents |= {version.content for version in bundle.versions.values()}
    assert contents
    for content in contents:
        get(home, content)  # which compares the parameters with the name


def _soon(left, what: str) -> None:
    """Wait for the last of something to go: a process ends some moments after its run."""
    deadline = time.monotonic() + _SOON_S
    while found := left():
        assert time.monotonic() < deadline, f"{what}: {found}"
        time.sleep(0.2)
