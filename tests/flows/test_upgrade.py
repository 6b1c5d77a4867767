"""A home of the version before (d9fb884) and its server, after a power cut: all goes on by `flowrl up` of this one."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from deployment_runs import end_of, on_server, runs_of, start
from upgrade_home import KNOWN, unpack

from flowrl_cli.server.connection import connected
from flowrl_cli.server.record import Record
from flowrl_core.installation import ROOT
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.orchestration.server.bootstrap import bootstrap_server
from tasks.orchestration.server.inventory import take_inventory

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
SERVER = KNOWN["server"]


def missed(database, runs, now):
    """The first of the scheduled runs was due an hour ago, whatever day it is now; the others are still to come."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for number, run in enumerate(runs):
            due = (now + timedelta(hours=24 * number - 1)).strftime("%Y-%m-%d %H:%M:%S.%f")
            changed = connection.execute(
                "UPDATE flow_run SET next_scheduled_start_time = ?, expected_start_time = ? WHERE id = ?",
                (due, due, str(UUID(run))),
            )
            assert changed.rowcount == 1


def deployed(database):
    """What the old version had written into its deployment of evaluations."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = (
            "SELECT entrypoint, pull_steps, infra_overrides FROM deployment WHERE entrypoint LIKE '%:evaluate_skill'"
        )
        ((entrypoint, pull, job),) = connection.execute(query)
    return {"entrypoint": entrypoint, "pull_steps": json.loads(pull), "job_variables": json.loads(job)}


@pytest.fixture(scope="module")
def flowrl(tmp_path_factory, compiled):
    """Starts the command for the home, whose server and workers are up."""
    home = Home(unpack(tmp_path_factory.mktemp("upgrade")))
    home.cache.symlink_to(compiled)
    missed(home.prefect / "prefect.db", SERVER["nightly"], datetime.now(UTC))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLOWRL_", "PREFECT_"))}
    own = {"FLOWRL_HOME": str(home.root), "FLOWRL_SLOTS": "2", "PREFECT_HOME": str(home.prefect)}
    own["FLOWRL_SLOTS_DIR"] = str(tmp_path_factory.mktemp("slots"))

    def call(*arguments, **variables):
        environment = {**kept, **own, **variables}
        return subprocess.Popen(
            [FLOWRL, *arguments], env=environment, cwd=home.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    call.home, call.deployed = home, deployed(home.prefect / "prefect.db")
    try:
        said = call("up").communicate(timeout=180)[0].decode()
        assert "ready" in said, said
        with connected(Record.load(home).server):
            yield call
    finally:
        call("down").communicate(timeout=60)
    assert not home.embedded.exists()


@pytest.fixture(scope="module")
def ended(flowrl):
    """What came of the commands that go on with the campaigns, after a person has approved of the run that waited."""

    async def resume(client):
        return await client.resume_flow_run(UUID(SERVER["suspended"]))

    assert on_server(resume).status.value == "ACCEPT"
    commands = {name: flowrl("campaign", "--campaign", name) for name in ("killed", "asked")}
    said = {name: command.communicate(timeout=240)[0].decode() for name, command in commands.items()}
    return {name: (commands[name].returncode, text) for name, text in said.items()}


@pytest.fixture(scope="module")
def registry(flowrl):
    with Registry.open(flowrl.home) as registry:
        yield registry


def test_the_deployments_become_those_of_this_version(flowrl):
    assert set(take_inventory().deployments.values()) == {True}


@pytest.mark.parametrize(
    ("deployment", "name", "message"),
    [
        ("campaign/default", "Completed", "learned dig_a"),
        ("evaluate-skill/gpu", "StillLearned", ""),
        ("housekeeping/default", "DryRun", ""),
        ("train-skill/gpu", "Learned", ""),
    ],
)
def test_what_was_queued_under_an_old_entrypoint_is_done(flowrl, deployment, name, message):
    end = end_of(UUID(SERVER["queued"][deployment]))
    assert (end.is_completed(), end.name) == (True, name), end
    assert message in end.message


def test_the_run_that_waited_for_approval_waited_on_and_learns(ended, registry):
    assert end_of(UUID(SERVER["suspended"])).name == "Learned"
    assert ended["asked"][0] == 0, ended["asked"][1]
    assert registry.skills.facts("asked")["make_e"].learned and registry.attempts.outstanding("asked") == []


def test_the_schedule_is_as_the_person_set_it_and_the_night_that_was_missed_is_made_up_for(flowrl):
    end = end_of(UUID(SERVER["nightly"][0]))
    assert (end.name, end.message) == ("Completed", "learned make_b"), end

    async def read(client):
        return await client.read_deployment_by_name("campaign/nightly"), await runs_of(client, "campaign/nightly")

    nightly, runs = on_server(read)
    (schedule,) = nightly.schedules
    assert (schedule.active, schedule.schedule.cron, schedule.parameters) == (
        True,
        "0 22 * * *",
        {"campaign": "learned"},
    )
    coming = [run for run in runs if run.state.is_scheduled()]
    assert coming and all(run.auto_scheduled and run.parameters["campaign"] == "learned" for run in coming)
    assert {run.expected_start_time.hour for run in coming} == {22}


def test_the_campaign_that_was_killed_goes_on_to_its_end(ended, registry):
    assert ended["killed"][0] == 0, ended["killed"][1]
    facts = registry.skills.facts("killed")
    assert all(facts[skill].learned for skill in ("make_c", "make_d")) and registry.attempts.outstanding("killed") == []
    (run,) = registry.skill_runs.of(facts["make_c"].identity)
    assert run.verdict == "learned"


def test_what_was_learned_before_is_not_learned_again(ended, registry):
    for skill in ("dig_a", "goto_bench", "make_b"):
        assert len(registry.skill_runs.of(KNOWN["registry"]["identities"][skill])) == 1


@pytest.fixture
def put_back(flowrl):
    """Gives the evaluations the deployment that they had, as on a server that nobody has brought up to date."""

    def put(**others):
        async def patch(client):
            there = await client.read_deployment_by_name("evaluate-skill/gpu")
            (await client._client.patch(f"/deployments/{there.id}", json=flowrl.deployed | others)).raise_for_status()

        on_server(patch)

    yield put
    bootstrap_server(own=True, registry=None)


@pytest.mark.parametrize("others", [{}, {"job_variables": {"stream_output": False}}], ids=["embedded", "elsewhere"])
def test_a_worker_runs_what_is_still_deployed_as_the_old_version_did(flowrl, put_back, others):
    """It may be quicker than the renewal; and on a server elsewhere, where there was no command, nothing is renewed."""
    assert not (ROOT / flowrl.deployed["entrypoint"].partition(":")[0]).exists()
    put_back(**others)
    end = end_of(start("evaluate-skill/gpu", campaign="learned", skill="dig_a", episodes=64))
    assert end.name == "StillLearned", end


def test_a_server_elsewhere_is_brought_up_to_date_when_that_is_asked_for(flowrl, put_back, tmp_path):
    async def nightly(client):
        (schedule,) = (await client.read_deployment_by_name("campaign/nightly")).schedules
        return schedule.active, schedule.parameters

    put_back()
    elsewhere = {"FLOWRL_HOME": str(tmp_path / "home"), "PREFECT_API_URL": Record.load(flowrl.home).server.url}
    try:
        for options, is_current in ((), False), (("--redeploy",), True):
            said = flowrl("up", *options, **elsewhere).communicate(timeout=120)[0].decode()
            assert ("deployments: up to date" in said) == is_current, said
            assert take_inventory().deployments["evaluate-skill/gpu"] == is_current
    finally:
        flowrl("down", **elsewhere).communicate(timeout=60)
    assert on_server(nightly) == (True, {"campaign": "learned"})
