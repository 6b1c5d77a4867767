"""The deployments on a real server: made by Prefect's command or by FlowRL, and started in every way there is."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from deployment_runs import PATIENCE_S, end_of, on_server, runs_of, start
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists

from flowrl_cli.request.campaign import make_request
from flowrl_core.errors import InputError
from tasks.campaign.campaign_runs import start_campaign_run
from tasks.orchestration.server.bootstrap import bootstrap, bootstrap_server

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
DEPLOYMENTS = {"campaign/default", "campaign/nightly", "evaluate-skill/gpu", "housekeeping/default", "train-skill/gpu"}
# What no campaign has submitted.
SUBMITTED = {"campaign": "none", "skill": "dig_a", "attempt": 1_000, "run": 1_000}
# What a campaign is started with here; dig_a is learned already, so nothing is trained.
ASKED = {"env": "corridor", "targets": ["dig_a"], "training": {"width": 16}, "limits": {"max_parallel": 2}}


def table_of(run):
    """The rows of the table on a run's page."""
    filter = ArtifactFilter.model_validate({"flow_run_id": {"any_": [run]}, "type": {"any_": ["table"]}})
    (artifact,) = on_server(lambda client: client.read_artifacts(artifact_filter=filter))
    return json.loads(artifact.data)


def environment_of(server):
    return {**os.environ, "PREFECT_API_URL": server.url, "PREFECT_HOME": str(server.home.prefect)}


# The same deployments, whoever brings them


async def deployments(client):
    """All that the server says of the deployments, but for what differs each time it is asked to make one."""
    found = {}
    passing = {
        "id",
        "created",
        "updated",
        "deployment_id",
        "last_polled",
        "status",
        "name",
        "flow_id",
        "version_id",
        "version",
    }

    def settled(value):
        if isinstance(value, dict):
            return {key: settled(one) for key, one in value.items() if key not in passing}
        return [settled(one) for one in value] if isinstance(value, list) else value

    for one in await client.read_deployments():
        flow = await client.read_flow(one.flow_id)
        described = settled(one.model_dump(mode="json", exclude={"version_info"}))
        found[f"{flow.name}/{one.name}"] = described | {"work_queue": str(one.work_queue_id)}
    return found


async def delete_deployments(client):
    for one in await client.read_deployments():
        await client.delete_deployment(one.id)


def deploy_all(server):
    subprocess.run(
        [PREFECT, "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env=environment_of(server),
        check=True,
        capture_output=True,
        timeout=120,
    )


@pytest.fixture
def restored(server):
    yield
    on_server(delete_deployments)
    bootstrap_server(own=True, registry=None)


def test_prefect_deploy_and_bootstrap_make_the_same_deployments(server, restored):
    on_server(delete_deployments)
    on_server(lambda client: bootstrap(client, update=False))
    of_bootstrap = on_server(deployments)
    on_server(delete_deployments)
    deploy_all(server)
    assert on_server(deployments) == of_bootstrap
    assert set(of_bootstrap) == DEPLOYMENTS


def test_a_worker_finds_a_flow_that_prefect_deployed_and_a_second_start_beside_it_is_cancelled(server, restored):
    on_server(delete_deployments)
    deploy_all(server)
    runs = [start("housekeeping/default", what=["leftovers"]) for _ in range(2)]
    ends = sorted((end_of(run) for run in runs), key=lambda state: state.name)
    assert [state.name for state in ends] == ["Cancelled", "DryRun"]
    assert "concurrency limit" in ends[0].message


def test_prefects_own_worker_finds_a_flow_whatever_lies_around(server, restored, tmp_path):
    """By Prefect's own command, from a directory and with a PYTHONPATH that have packages of the same names."""
    for name in ("flows", "tasks"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('another {name}')")

    async def set_up(client):
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name="plain", type="process"))
        there = await client.read_deployment_by_name("housekeeping/default")
        await client.update_deployment(there.id, DeploymentUpdate(work_pool_name="plain", work_queue_name="default"))

    on_server(set_up)
    run = start("housekeeping/default", what=["leftovers"])
    worker = subprocess.run(
        [PREFECT, "worker", "start", "--pool", "plain", "--run-once"],
        cwd=tmp_path,
        env={**environment_of(server), "FLOWRL_HOME": str(server.home.root), "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert end_of(run).name == "DryRun", worker.stdout + worker.stderr


def test_what_people_set_stays_when_the_deployments_are_brought_up_to_date(server, restored):
    async def set_up(client):
        nightly = await client.read_deployment_by_name("campaign/nightly")
        await client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)
        await client.set_deployment_paused_state(nightly.id, True)
        path = f"/deployments/{nightly.id}"
        changed = {
            "parameters": {"campaign": "mine", "targets": []},
            "description": "old",
            "job_variables": {"command": "false"},
        }
        (await client._client.patch(path, json=changed)).raise_for_status()
        await bootstrap(client, update=True)
        return await client.read_deployment_by_name("campaign/nightly")

    nightly = on_server(set_up)
    assert nightly.paused and nightly.schedules[0].active and nightly.parameters["campaign"] == "mine"
    assert nightly.description != "old" and "command" not in nightly.job_variables


def test_nobody_else_s_deployments_are_changed(server, restored):
    async def set_up(client):
        gpu = await client.read_deployment_by_name("train-skill/gpu")
        (await client._client.patch(f"/deployments/{gpu.id}", json={"description": "theirs"})).raise_for_status()
        nightly = await client.read_deployment_by_name("campaign/nightly")
        await client.delete_deployment(nightly.id)
        await bootstrap(client, update=False)
        return await deployments(client)

    found = on_server(set_up)
    assert set(found) == DEPLOYMENTS and found["train-skill/gpu"]["description"] == "theirs"


# The same campaign, however it is started


def settings(registry, campaign):
    return registry.campaigns.get(campaign).spec.model_dump(exclude={"campaign"})


@pytest.fixture(scope="module")
def by_command(learned):
    """A campaign as `flowrl campaign` submits it."""
    request = make_request({"campaign": "by-command", **ASKED})
    run = asyncio.run(start_campaign_run(learned.uuid, request.spec))
    assert end_of(run.id).message == "learned dig_a"
    return settings(learned, "by-command")


def test_prefect_deployment_run_does_what_the_command_does(server, learned, by_command):
    given = [f"{name}={json.dumps(value)}" for name, value in {"campaign": "by-prefect", **ASKED}.items()]
    arguments = [part for one in given for part in ("--param", one)]
    done = subprocess.run(
        [PREFECT, "deployment", "run", "campaign/default", *arguments],
        env=environment_of(server),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    run = UUID(re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stdout)[0])
    assert end_of(run).message == "learned dig_a"
    assert settings(learned, "by-prefect") == by_command


def test_the_schedule_goes_on_with_the_campaign_and_its_settings(learned, by_command, restored):
    before = learned.campaigns.get("by-command")

    async def switch_on(client):
        nightly = await client.read_deployment_by_name("campaign/nightly")
        assert not nightly.schedules[0].active
        at = datetime.now(UTC) + timedelta(seconds=10)
        soon = IntervalSchedule(interval=timedelta(days=1), anchor_date=at)
        of_campaign = {"campaign": "by-command"}
        schedule = DeploymentScheduleUpdate(slug="nightly", active=True, schedule=soon, parameters=of_campaign)
        await client.update_deployment(nightly.id, DeploymentUpdate(schedules=[schedule]))
        deadline = time.monotonic() + PATIENCE_S
        while not (runs := await runs_of(client, "campaign/nightly")):
            assert time.monotonic() < deadline, "nothing was scheduled"
            await asyncio.sleep(0.2)
        run = min(runs, key=lambda run: run.expected_start_time)
        assert abs(run.expected_start_time - at) < timedelta(seconds=1), "it came too late for this time"
        return run.id

    run = on_server(switch_on)
    assert end_of(run).message == "learned dig_a"
    after = learned.campaigns.get("by-command")
    assert after.spec == before.spec and after.start > before.start
    assert on_server(lambda client: client.read_flow_run(run)).auto_scheduled


def test_a_campaign_that_never_was_cannot_go_on(learned):
    end = end_of(start("campaign/nightly", campaign="never"))
    assert end.name == "Refused" and end.message.startswith("targets: none is named, and there is no campaign 'never'")
    assert "never" not in [campaign.name for campaign in learned.campaigns.all()]


def test_a_campaign_that_cannot_be_is_refused_in_the_words_of_the_command(learned):
    asked = {"env": "corridor", "targets": ["dig_a"]}
    wrong = [
        {"campaign": "few", "evaluation": {"episodes": 5}, "training": {"num_envs": 5}},
        {"campaign": "many", "training": {"num-envs": "many"}},
        {"campaign": "twice", "overrides": ["dig_a.frames=7e4", "dig_a.frames=8e4"]},
        {"campaign": "elsewhere", "env": "coridor"},
    ]
    runs = [start("campaign/default", **{**asked, **one}) for one in wrong]
    for run, one in zip(runs, wrong, strict=True):
        with pytest.raises(InputError) as found:
            make_request({**asked, **one})
        end = end_of(run)
        assert (end.name, end.message) == ("Refused", str(found.value))
        assert one["campaign"] not in [campaign.name for campaign in learned.campaigns.all()]


def test_parameters_are_read_as_options_and_files_are(learned):
    asked = {**ASKED, "training": {"width": "1.6e1", "num-envs": "64", "frames": "4e6"}}
    end = end_of(start("campaign/default", campaign="as-text", **asked))
    assert end.message == "learned dig_a"
    assert learned.campaigns.get("as-text").spec == make_request({"campaign": "as-text", **ASKED}).spec
    assert end_of(start("housekeeping/default", **{"keep-days": "3e1"}, what=["leftovers"])).name == "DryRun"


def test_a_run_whose_parameters_do_not_fit_its_flow_is_refused_with_the_name_of_the_first(learned):
    wrong = {
        "targest: there is no such parameter. Did you mean targets?": ("campaign/default", {"targest": ["dig_a"]}),
        "skill: is missing. Set it": ("evaluate-skill/gpu", {"campaign": "basics"}),
        "episodes: must be a whole number (got 'x')": ("evaluate-skill/gpu", {"skill": "dig_a", "episodes": "x"}),
        "what, entry 1: must be 'records', ": ("housekeeping/default", {"what": ["all"]}),
        "more: there is no such parameter": ("train-skill/gpu", {**SUBMITTED, "more": 1}),
    }
    runs = {said: start(name, **given) for said, (name, given) in wrong.items()}
    for said, run in runs.items():
        end = end_of(run)
        assert end.name == "Refused" and end.message.startswith(said), (said, end)


# A skill measured again


def test_a_skill_is_measured_again_with_its_bundle_and_with_the_heads(learned):
    asked = {"campaign": "basics", "skill": "dig_a", "episodes": 64}
    runs = [start("evaluate-skill/gpu", of=of, **asked) for of in ("bundle", "heads")]
    for run in runs:
        end = end_of(run)
        assert end.is_completed() and end.name == "StillLearned", end
        (row,) = table_of(run)
        assert row["skill"] == "dig_a" and row["episodes"] == 64
        assert row["threshold"] <= row["lower bound"] <= row["success"] <= 1


def test_a_skill_that_cannot_be_measured_is_refused(learned):
    right = {"campaign": "basics", "skill": "dig_a", "episodes": 64}
    wrong = {"skill": "dig_z", "campaign": "none", "episodes": 65}
    runs = {field: start("evaluate-skill/gpu", **right | {field: value}) for field, value in wrong.items()}
    for field, run in runs.items():
        end = end_of(run)
        assert end.is_failed() and end.name == "Refused" and end.message.startswith(f"{field}: "), end


# Housekeeping


def test_housekeeping_lists_first_and_removes_when_told(server, learned):
    doomed = server.home.archive / "old" / "dig_a-99"
    doomed.mkdir(parents=True)
    (doomed / "metrics.jsonl").write_bytes(b"0" * 3_000_000)
    long_ago = time.time() - 90 * 86_400
    os.utime(doomed, (long_ago, long_ago))

    run = start("housekeeping/default", keep_days=60)
    end = end_of(run)
    assert end.name == "DryRun" and end.message.startswith("1 path of 3.0 MB could be removed")
    (row,) = table_of(run)
    assert (row["kind"], row["path"]) == ("records", "archive/old/dig_a-99") and "90 days ago" in row["why"]
    assert doomed.exists()

    run = start("housekeeping/default", keep_days=60, delete=True)
    assert end_of(run).message == "1 path of 3.0 MB removed"
    assert table_of(run) == [row] and not doomed.exists()
