"""Processes, machines and servers that are lost in mid-training (`make faults`; ten minutes)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "flows"))

from flow_runs import Endless, end_of, flow_run, process_of, spec, start, until

from flowrl_cli.server import embedded
from flowrl_cli.server.processes import find, spawn, stop
from flowrl_cli.server.record import Record
from flowrl_core.installation import command
from flowrl_core.skills.knowledge import shipped
from flowrl_core.specs.campaign import LimitsSpec
from flowrl_core.storage.atomic import write_text
from flowrl_core.storage.registry import Registry
from tasks.campaign.campaign_runs import cancel_campaign
from tasks.orchestration.devices.slots import count_slots, free_slots

HEARTBEAT_S = 35


@pytest.fixture(scope="module")
def registry(server):
    with Registry.open(server.home) as registry:
        yield registry


def own_skills(server, name, factor):
    """A knowledge base whose skills no other campaign has."""
    text = shipped("corridor").read_text()
    for reward in ("gained.a", "closer.bench", *(f"gained.{letter}" for letter in "bcdefg")):
        text = text.replace(f'"{reward}"', f'"{factor} * {reward}"')
    write_text(server.home.knowledge_file(f"{name}.toml"), text)
    return f"{name}.toml"


@pytest.fixture
def endless(server, registry, request):
    """A campaign of its own that trains dig_a for ever."""
    number = 2 + len(registry.campaigns.all())
    name = f"lost-{number}"
    campaign = Endless(server.home, registry, name, "dig_a", knowledge=own_skills(server, name, number))
    yield campaign
    embedded.heal(server.home)
    assert asyncio.run(cancel_campaign(campaign.run.registry, campaign.run.campaign))
    until(lambda: free_slots() == count_slots(), "free slots")


def goes_on(endless, executions=2):
    """The same Prefect run is executed once more, from its checkpoint, and nothing is doubled."""
    until(lambda: flow_run(endless.attempt.flow_run_id).run_count >= executions, "the next execution")
    endless.trained_on(endless.checkpoint())
    assert "resuming dig_a from update" in endless.directory.log.read_text()
    (attempt,) = endless.registry.attempts.outstanding(endless.name)
    assert attempt.id == endless.attempt.id
    lines = endless.directory.metrics.read_text().splitlines()[:-1]  # the last one may be in the making
    assert [json.loads(line)["update"] for line in lines] == list(range(1, len(lines) + 1)), "none lost or doubled"


def kill(*processes):
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)


def workers(endless):
    return Record.load(endless.home).alive("workers")


def test_a_worker_that_is_killed_leaves_its_runs_at_work(endless):
    kill(workers(endless))
    endless.trained_on(endless.updates())
    assert embedded.heal(endless.home)
    endless.trained_on(endless.updates())
    assert flow_run(endless.attempt.flow_run_id).run_count == 1
    assert flow_run(endless.run.id).state.is_running()


def test_a_worker_that_is_killed_with_its_runs_is_noticed_when_it_is_started_again(endless):
    until(endless.checkpoint, "a checkpoint")
    worker, trainer = workers(endless), process_of(endless.attempt.flow_run_id)
    kill(worker, trainer)
    assert embedded.heal(endless.home)
    goes_on(endless)


@pytest.fixture
def another_machine(server):
    """Starts the worker of another machine that has the same home; it is stopped when all else is over."""
    started = []

    def start_worker():
        record = Record.load(server.home)
        environment = {**record.alive("workers").environ(), "FLOWRL_MACHINE": "another"}
        gpu = command("tasks.orchestration.server.workers", "gpu")
        log = server.home.root / "another.log"
        started.append(spawn("workers", gpu, environment=environment, directory=server.home.root, log=log))

    yield start_worker
    stop(process for one in started if (process := find(one)))


def test_a_machine_that_is_gone_for_good_is_noticed_by_its_silence(another_machine, endless):
    """Its worker and the run's process die; the workers of the other machine learn it from the missing heartbeats."""
    until(endless.checkpoint, "a checkpoint")
    time.sleep(HEARTBEAT_S)
    another_machine()
    kill(workers(endless), process_of(endless.attempt.flow_run_id))
    began = time.monotonic()
    until(lambda: flow_run(endless.attempt.flow_run_id).run_count >= 2, "the second execution")
    print(f"\nnoticed and tried again after {time.monotonic() - began:.0f} s")
    goes_on(endless)


def test_a_trainer_that_is_told_to_end_saves_first(endless):
    trainer = process_of(endless.attempt.flow_run_id)
    # In the middle between two regular checkpoints, of which there is one each 10 updates.
    seen = until(lambda: (updates := endless.updates()) % 10 in (4, 5, 6) and updates, "the middle")
    trainer.send_signal(signal.SIGTERM)
    psutil.wait_procs([trainer], timeout=30)
    goes_on(endless)
    resumed = int(endless.directory.log.read_text().rpartition("resuming dig_a from update ")[2].split()[0])
    assert resumed >= seen, "all that was trained before"


def test_a_server_that_is_away_for_a_minute_is_waited_for(endless):
    kill(Record.load(endless.home).alive("server"))
    before = endless.updates()
    time.sleep(60)
    endless.trained_on(before)
    assert embedded.heal(endless.home)
    endless.trained_on(endless.updates())
    assert flow_run(endless.attempt.flow_run_id).state.is_running()
    assert flow_run(endless.attempt.flow_run_id).run_count == 1


def test_a_server_that_is_stopped_for_a_while_is_waited_for(endless):
    server = Record.load(endless.home).alive("server")
    server.suspend()
    before = endless.updates()
    time.sleep(30)
    server.resume()
    endless.trained_on(before)
    assert flow_run(endless.run.id).state.is_running()


def test_a_run_that_hangs_ends_itself_and_goes_on_from_its_checkpoint(server, registry):
    name = f"hang-{len(registry.campaigns.all())}"
    limits = LimitsSpec(stall_minutes=0.25)
    wanted = spec(name, "dig_a", knowledge=own_skills(server, name, 1.5), limits=limits)
    write_text(server.crash_file, "before_look_record:1:hang")
    try:
        end = end_of(start(registry, wanted))
    finally:
        for path in server.crash_file.parent.glob(f"{server.crash_file.name}*"):
            path.unlink()
    assert end.is_completed(), end
    fact = registry.skills.facts(name)["dig_a"]
    assert fact.learned and fact.retries == 1
    with registry._engine.connect() as connection:
        reasons = (
            connection.exec_driver_sql("SELECT reason FROM interruptions ORDER BY created_at DESC").scalars().all()
        )
    assert "no progress for 0.25 minutes" in reasons[0]


def test_a_run_that_dies_at_every_start_is_tried_a_bounded_number_of_times(server, registry):
    name = f"doomed-{len(registry.campaigns.all())}"
    wanted = spec(name, "dig_a", knowledge=own_skills(server, name, 1.25), limits=LimitsSpec(max_retries=2))
    # Where the run's directory must be made there is a file, whatever the run's number.
    for number in range(1, 100):
        path = server.home.run_directory(name, "dig_a", number).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("in the way")
    end = end_of(start(registry, wanted))
    assert end.name == "TargetsMissed"
    fact = registry.skills.facts(name)["dig_a"]
    assert (fact.cause, fact.retries) == ("infrastructure", 3) and fact.reason
    assert registry.attempts.outstanding(name) == []
    shutil.rmtree(server.home.runs / name)


def test_a_server_whose_database_was_replaced_by_an_empty_one_gets_everything_again(endless):
    """The old runs are unknown to it; the process that still trains is not doubled, and its work is taken up."""
    record = Record.load(endless.home)
    server = record.alive("server")
    orphans = [process_of(endless.attempt.flow_run_id), process_of(endless.run.id)]
    kill(server)
    for path in endless.home.prefect.glob("prefect.db*"):
        path.unlink()
    assert embedded.heal(endless.home)
    for process in orphans:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs([process for process in orphans if process], timeout=40)
    kept = endless.checkpoint()
    endless.run = start(endless.registry, endless.wanted)
    attempt = until(lambda: next(iter(endless.registry.attempts.outstanding(endless.name)), None), "the new attempt")
    until(lambda: endless.registry.attempts.get(attempt.id).flow_run_id, "its submission")
    endless.trained_on(kept)
    endless.attempt = next(iter(endless.registry.attempts.outstanding(endless.name)))
    assert endless.registry.skill_runs.get(endless.attempt.run).ordinal and os.path.isdir(endless.directory.path)
