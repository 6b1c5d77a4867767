"""Campaigns of the tiny environment as they really run: server, workers, and a process per flow run."""

import asyncio
import contextlib
import json
import signal
import time

import psutil
import pytest
from prefect.client.orchestration import get_client

from flowrl_cli import embedded
from flowrl_core.specs import CampaignSpec, EvaluationSpec, TrainingSpec
from flowrl_core.storage.atomic import is_temporary
from flowrl_core.storage.registry import Registry
from tasks.orchestration.campaign_runs import cancel_campaign_run, start_campaign_run, watch_campaign_run
from tasks.orchestration.submission import find_runs, read_runs
from tasks.orchestration.tags import campaign_tags

TRAINING = TrainingSpec(
    frames=60_000,
    num_envs=16,
    rollout_length=16,
    minibatch_size=64,
    width=16,
    episode_limit=60,
    world_pool=32,
    snapshot_capacity=32,
    checkpoint_updates=10,
)
EVALUATION = EvaluationSpec(episodes=64, threshold=0.6, target=0.9, min_frames=1_024, min_episodes=16, head_episodes=0)
# Never learned, never over: the first look comes after more frames than anybody waits for.
ENDLESS = {
    "training": TRAINING.model_copy(update={"frames": 10**9}),
    "evaluation": EVALUATION.model_copy(update={"min_frames": 10**9}),
}
PATIENCE_S = 240


def spec(name, *targets, **changes):
    groups = {"training": TRAINING, "evaluation": EVALUATION, **changes}
    return CampaignSpec(campaign=name, env="corridor", targets=list(targets), **groups)


MIXED = spec("mixed", "make_b", "make_d", overrides=["make_d.frames=512"])


@pytest.fixture(scope="module")
def registry(server):
    with Registry.open(server.home) as registry:
        yield registry


def start(registry, wanted):
    return asyncio.run(start_campaign_run(registry.uuid, wanted))


def end_of(run):
    async def follow():
        async for state in watch_campaign_run(run):
            last = state
        return last

    return asyncio.run(asyncio.wait_for(follow(), PATIENCE_S))


def flow_run(id):
    async def read():
        async with get_client() as client:
            return (await read_runs(client, [str(id)]))[str(id)]

    return asyncio.run(read())


def skill_runs(registry, campaign):
    async def read():
        async with get_client() as client:
            return await find_runs(client, campaign_tags(registry.uuid, campaign), flow="train-skill")

    return asyncio.run(read())


def archived(server, skill, name):
    return (server.home.archived_run("mixed", skill, 1).path / name).read_text()


def until(condition, what):
    """The first true answer of the condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.2)
    return answer


@pytest.fixture(scope="module")
def mixed(server, registry):
    """A campaign that has ended, and its last state: one target can be learned, the other's budget is far too small."""
    run = start(registry, MIXED)
    return run, end_of(run)


def test_a_campaign_learns_what_it_can_and_fails_if_a_target_is_missed(mixed, registry):
    _, end = mixed
    assert end.is_failed() and end.message == "not learned: make_d"
    facts = registry.facts("mixed")
    assert {name for name, fact in facts.items() if fact.learned} == {"dig_a", "goto_bench", "make_b"}
    assert registry.outstanding("mixed") == []


def test_a_skill_that_did_not_learn_ends_completed_and_is_not_tried_again(mixed, registry):
    fact = registry.facts("mixed")["make_d"]
    assert fact.cause == "verdict"
    assert [one.verdict for one in registry.runs(fact.identity)] == ["failed"]
    runs = skill_runs(registry, "mixed")
    assert {run.name: run.state.name for run in runs} == {
        "dig_a": "Learned",
        "goto_bench": "Learned",
        "make_b": "Learned",
        "make_d": "NotLearned",
    }
    assert all(run.state.is_completed() for run in runs)


def test_a_dependant_starts_as_soon_as_its_dependencies_are_learned(mixed, server):
    timing = {name: json.loads(archived(server, name, "timing.json")) for name in ("dig_a", "goto_bench", "make_b")}
    waited = timing["make_b"]["first_line"] - max(timing["dig_a"]["ended"], timing["goto_bench"]["ended"])
    print(f"\ndependency done -> dependant's first line: {waited:.1f} s")
    assert 0 < waited < 45, "a loaded machine is slow, but it was not the safety net of a minute that woke the campaign"


def test_what_a_run_says_is_kept_in_its_log(mixed, server):
    log = archived(server, "make_b", "training.log")
    assert "device slot" in log and "prepared make_b" in log and "look 1" in log


def test_a_second_start_repeats_nothing(mixed, registry):
    run, end = mixed
    again = start(registry, MIXED)
    assert not again.attached and again.id != run.id
    assert end_of(again).message == end.message
    assert len(skill_runs(registry, "mixed")) == 4


class Endless:
    """A campaign whose only skill trains for ever."""

    def __init__(self, server, registry):
        self.home, self.registry = server.home, registry
        self.wanted = spec("endless", "make_c", **ENDLESS)
        self.run = start(registry, self.wanted)
        self.attempt = until(lambda: self._submitted(), "the submission")
        self.directory = self.home.run_directory("endless", "make_c", 1)
        self.trained_on(0)

    def _submitted(self):
        return next((one for one in self.registry.outstanding("endless") if one.flow_run_id), None)

    def updates(self):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return json.loads(self.directory.metrics.read_text().splitlines()[-1])["update"]
        return 0

    def checkpoint(self):
        whole = [path for path in self.directory.checkpoints.glob("step-*") if not is_temporary(path)]
        return max((int(path.name.removeprefix("step-")) for path in whole), default=0)

    def trained_on(self, update):
        until(lambda: self.updates() > update + 20, f"updates after {update}")

    def process(self, id):
        """The process of a flow run."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == str(id):
                    return process
        return None

    def kill(self, id):
        self.process(id).send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def endless(server, registry):
    campaign = Endless(server, registry)
    yield campaign
    asyncio.run(cancel_campaign_run(campaign.run))


def test_a_second_start_attaches_to_the_campaign_that_runs(endless):
    again = start(endless.registry, endless.wanted)
    assert again.attached and again.id == endless.run.id


def test_a_killed_trainer_goes_on_in_the_same_prefect_run_from_its_checkpoint(endless):
    until(endless.checkpoint, "a checkpoint")
    endless.kill(endless.attempt.flow_run_id)
    until(lambda: flow_run(endless.attempt.flow_run_id).run_count == 2, "the second execution")
    kept = endless.checkpoint()
    endless.trained_on(kept)
    assert "resuming make_c from update" in endless.directory.log.read_text()
    assert endless.registry.facts("endless")["make_c"].retries == 1


def test_a_campaign_that_was_killed_is_started_again_and_doubles_nothing(endless):
    endless.kill(endless.run.id)
    until(lambda: flow_run(endless.run.id).state.is_crashed(), "the crash")
    endless.trained_on(endless.updates())
    before, endless.run = endless.run, start(endless.registry, endless.wanted)
    assert not endless.run.attached and endless.run.id != before.id
    until(lambda: flow_run(endless.run.id).state.is_running(), "the second start")
    time.sleep(3)
    assert [one.id for one in endless.registry.outstanding("endless")] == [endless.attempt.id]
    assert len(skill_runs(endless.registry, "endless")) == 1


def test_a_server_that_dies_is_started_again_and_everything_goes_on(endless):
    embedded.Record.load(endless.home).alive("server").send_signal(signal.SIGKILL)
    endless.trained_on(endless.updates())
    assert embedded.heal(endless.home)
    assert embedded.status(endless.home) is not None
    assert flow_run(endless.attempt.flow_run_id).state.is_running()
    assert flow_run(endless.run.id).state.is_running()


def test_cancelling_a_campaign_saves_a_checkpoint_and_leaves_no_process(endless):
    assert asyncio.run(cancel_campaign_run(endless.run))
    assert flow_run(endless.run.id).state.is_cancelled()
    assert flow_run(endless.attempt.flow_run_id).state.is_cancelled()
    until(lambda: endless.process(endless.attempt.flow_run_id) is None, "the end of the trainer")
    until(lambda: endless.process(endless.run.id) is None, "the end of the campaign")
    assert endless.checkpoint() == endless.updates(), "the last update is saved"
