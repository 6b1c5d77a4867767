"""Attempts against a real registry and a real server; the runs have states but no processes."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from flowrl_cli.server.record import Record
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.campaign import CampaignSpec, LimitsSpec
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.campaign.reconcile import NO_ROOM, Reconciler
from tasks.orchestration.runs.lost import declare_lost
from tasks.orchestration.runs.tags import FLOWRL, is_from_here, registry_tag, worker_name


class Campaigner:
    """A campaign of its own registry, with one attempt at dig_a that became a Prefect run."""

    def __init__(self, home: Path, deployment: UUID, max_retries: int = 1) -> None:
        self.deployment = deployment
        self.skills = load_knowledge(shipped("corridor")).skills
        self.home = Home(home)
        self.registry = Registry.open(self.home)
        self.spec = CampaignSpec(
            campaign="one", env="corridor", targets=["dig_a"], limits=LimitsSpec(max_retries=max_retries)
        )
        self.campaign = self.registry.campaigns.record(self.spec, self.skills)
        self.sent, self.woken = [], []

    @property
    def fact(self):
        return self.registry.skills.facts("one")["dig_a"]

    def attempt(self):
        return self.registry.skill_runs.begin("one", self.fact.identity)

    async def run_of(self, attempt, *states):
        """A Prefect run of the attempt that went through these states."""
        async with get_client() as client:
            run = await client.create_flow_run_from_deployment(self.deployment)
            for state in (Running(), *states):
                await client.set_flow_run_state(run.id, state, force=True)
            self.registry.attempts.set_flow_run(attempt.id, str(run.id))
            return await client.read_flow_run(run.id)

    async def reconcile(self):
        async def send(attempt):
            self.sent.append(attempt)
            return await self.run_of(attempt)

        async with get_client() as client:
            reconciler = Reconciler(client, self.home, self.registry, self.campaign, send, self.woken.append)
            self.full = await reconciler.reconcile()

    async def state_of(self, run):
        async with get_client() as client:
            return (await client.read_flow_run(run.id)).state


@pytest.fixture(scope="module")
def deployment(server) -> UUID:
    """Runs of it are never executed: no worker serves its pool."""

    async def create():
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
            flow_id = await client.create_flow_from_name("stand-in")
            return await client.create_deployment(
                flow_id, "default", work_pool_name="nobody", entrypoint="none.py:none"
            )

    return asyncio.run(create())


@pytest.fixture
def one(deployment, tmp_path):
    campaigner = Campaigner(tmp_path / "home", deployment)
    yield campaigner
    campaigner.registry.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("tasks.campaign.reconcile._FRESH_S", 0.0)


def reconciled(one, *states):
    """What the attempt, its fact and its run's state are after a run that ended in the last of these states."""

    async def work():
        attempt = one.attempt()
        run = await one.run_of(attempt, *states)
        await one.reconcile()
        return one.registry.attempts.get(attempt.id), await one.state_of(run)

    return asyncio.run(work())


def test_a_run_that_executes_is_left_alone(one):
    attempt, state = reconciled(one)
    assert attempt.end is None and state.is_running()


def test_a_run_that_found_no_room_on_the_disk_is_not_tried_in_vain_and_its_campaign_is_told(one):
    attempt, now = reconciled(one, Failed(name=NO_ROOM, message="0 MB free"))
    assert (attempt.end, attempt.reason) == ("infrastructure", f"{NO_ROOM}: 0 MB free") and now.name == NO_ROOM
    assert one.full == "0 MB free"
    one.registry.campaigns.begin_start(one.spec)
    assert reconciled(one, Crashed(message="killed"))[0].end is None and one.full == "", "the next start goes on"


@pytest.mark.parametrize("state", [Crashed(message="killed"), Failed(message="disk full"), Completed()])
def test_a_run_that_left_no_verdict_goes_on_as_the_same_run(one, state):
    attempt, now = reconciled(one, state)
    assert attempt.end is None
    assert now.type == StateType.SCHEDULED and now.name == AwaitingRetry().name
    assert one.fact.retries == 1 and one.fact.executing


def test_a_crash_is_acted_upon_when_the_worker_has_said_all_it_has_to_say(one, monkeypatch):
    monkeypatch.setattr("tasks.campaign.reconcile._FRESH_S", 30.0)
    attempt, state = reconciled(one, Crashed())
    assert attempt.end is None and state.is_crashed() and one.fact.retries == 0
    assert one.woken == [30.0]


def test_retries_are_bounded_and_leave_the_skill_failed_by_infrastructure(one):
    async def work():
        attempt = one.attempt()
        run = await one.run_of(attempt, Crashed())
        await one.reconcile()
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Crashed(message="again"), force=True)
        await one.reconcile()
        return one.registry.attempts.get(attempt.id)

    attempt = asyncio.run(work())
    assert attempt.end == "infrastructure"
    assert one.fact.failed and one.fact.cause == "infrastructure" and "again" in one.fact.reason


def test_a_cancelled_run_is_not_tried_again(one):
    attempt, state = reconciled(one, Cancelled(message="by a person"))
    assert attempt.end == "cancelled" and state.is_cancelled()
    assert one.fact.cause == "cancelled"


def test_a_run_that_the_server_does_not_know_is_trouble(one):
    async def work():
        attempt = one.attempt()
        one.registry.attempts.set_flow_run(attempt.id, "00000000-0000-4000-8000-000000000000")
        await one.reconcile()
        return one.registry.attempts.get(attempt.id)

    assert asyncio.run(work()).end == "infrastructure"


def test_the_registrys_verdict_wins_over_a_crash(one):
    async def work():
        attempt = one.attempt()
        run = await one.run_of(attempt, Crashed())
        one.registry.skill_runs.fail(attempt.run, "did not learn")
        await one.reconcile()
        return one.registry.attempts.get(attempt.id), await one.state_of(run)

    attempt, state = asyncio.run(work())
    assert attempt.end == "verdict" and state.is_crashed()
    assert one.fact.cause == "verdict"


def test_an_attempt_that_was_never_submitted_is_submitted_under_its_key(one):
    attempt = one.attempt()
    asyncio.run(one.reconcile())
    assert [sent.key for sent in one.sent] == [attempt.key]
    assert one.registry.attempts.get(attempt.id).end is None


def test_what_a_dead_campaign_left_behind_is_ended_by_another(one):
    async def work():
        attempt = one.attempt()
        await one.run_of(attempt, Crashed())
        one.campaign = one.registry.campaigns.record(one.spec.model_copy(update={"campaign": "two"}), one.skills)
        await one.reconcile()
        return one.registry.attempts.get(attempt.id)

    assert asyncio.run(work()).end == "infrastructure"
    assert not one.registry.skills.facts("two")["dig_a"].failed


def test_a_run_that_was_scheduled_before_the_clock_was_set_back_starts_now(one):
    later = datetime.now(UTC) + timedelta(hours=1)

    async def work():
        attempt = one.attempt()
        run = await one.run_of(attempt, Scheduled(scheduled_time=later))
        await one.reconcile()
        return one.registry.attempts.get(attempt.id), await one.state_of(run)

    attempt, state = asyncio.run(work())
    assert attempt.end is None and one.fact.retries == 0
    assert state.is_scheduled() and state.state_details.scheduled_time < later - timedelta(minutes=30)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_cancellation_is_given_up_on_though_the_clock_was_set(one, hours, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours)

    async def work():
        attempt = one.attempt()
        run = await one.run_of(attempt, Cancelling())
        await one.reconcile()
        assert (await one.state_of(run)).is_cancelling(), "its process may need a while"
        monkeypatch.setattr("tasks.orchestration.runs.submission.datetime", Clock)
        await one.reconcile()
        return await one.state_of(run)

    assert asyncio.run(work()).is_cancelled()
    assert one.woken == [0.0]


@pytest.fixture
def dead(tmp_path):
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("own", [True, False])
def test_runs_are_lost_whose_worker_and_process_are_gone_and_no_others(one, server, dead, own):
    living = Record.load(server.home).alive("workers").pid
    here, ours = worker_name("gpu").rpartition(":")[0], registry_tag(one.registry.uuid)
    assert is_from_here(f"{here}:{dead}")
    cases = {
        "gone": (Running(), f"{here}:{dead}", [ours]),
        "gone while it was cancelled": (Cancelling(), f"{here}:{dead}", [ours]),
        "of another machine": (Running(), f"gpu@another-machine:{dead}", [ours]),
        "of another home": (Running(), f"{here}:{dead}", [registry_tag("another")]),
        "of no registry": (Running(), f"{here}:{dead}", []),
        "its worker lives": (Running(), f"{here}:{living}", [ours]),
        "its process lives": (Running(), f"{here}:{dead}", [ours]),
        "just taken": (Pending(), None, [ours]),
        "just taken again": (Pending(), f"{here}:{dead}", [ours]),
        "it ends between the looks": (Running(), f"{here}:{dead}", [ours]),
    }

    async def work():
        async with get_client() as client:
            runs = {}
            for case, (state, worker, tags) in cases.items():
                run = await client.create_flow_run_from_deployment(one.deployment, tags=[FLOWRL, *tags])
                await client.set_flow_run_state(run.id, state, force=True)
                if worker:
                    await client.update_flow_run_labels(run.id, {"prefect.worker.name": worker})
                runs[case] = run.id
            environment = {**os.environ, "PREFECT__FLOW_RUN_ID": str(runs["its process lives"])}
            process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)

            async def end():
                await asyncio.sleep(1.0)
                await client.set_flow_run_state(runs["it ends between the looks"], Completed(), force=True)

            try:
                await asyncio.gather(declare_lost(client, registry=one.registry.uuid, own=own), end())
            finally:
                process.kill()
            found = {case: (await client.read_flow_run(run)).state.type for case, run in runs.items()}
            for run in runs.values():
                await client.delete_flow_run(run)
            return found

    found = asyncio.run(work())
    ends = {"gone": StateType.CRASHED, "gone while it was cancelled": StateType.CANCELLED}
    ends |= {"it ends between the looks": StateType.COMPLETED} | ({"of no registry": StateType.CRASHED} if own else {})
    assert found == {case: ends.get(case, state.type) for case, (state, _, _) in cases.items()}


def test_a_worker_of_the_same_number_is_another_one_if_it_began_later(one, server):
    """In a container the first processes have the same numbers at each start."""

    async def work():
        async with get_client() as client:
            run = await client.create_flow_run_from_deployment(one.deployment, tags=[FLOWRL])
            await client.set_flow_run_state(run.id, Running(), force=True)
            await asyncio.sleep(1.5)  # the kernel tells whole seconds of when it began itself
            code = [sys.executable, "-c", "import time; time.sleep(60)", "tasks.orchestration.server.workers"]
            later = subprocess.Popen(code)
            name = worker_name("gpu").rpartition(":")[0]
            await client.update_flow_run_labels(run.id, {"prefect.worker.name": f"{name}:{later.pid}"})
            try:
                lost = await declare_lost(client, registry=None, own=True)
            finally:
                later.kill()
                await client.delete_flow_run(run.id)
            return run.id in lost

    assert asyncio.run(work())
