"""Campaigns of the tiny environment through the real server: started, followed, looked at, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time

import psutil
from prefect.client.orchestration import get_client

from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from flowrl_core.storage.atomic import is_temporary
from tasks.campaign.campaign_runs import start_campaign_run, watch_campaign_run
from tasks.orchestration.runs.submission import find_runs, read_runs
from tasks.orchestration.runs.tags import campaign_tags

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


def process_of(id):
    """The process of a flow run; None if there is none."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(id):
                return process
    return None


def until(condition, what):
    """The first true answer of the condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.2)
    return answer


class Endless:
    """A campaign whose only skill trains for ever."""

    def __init__(self, home, registry, name, skill, **changes):
        self.home, self.registry, self.name = home, registry, name
        self.wanted = spec(name, skill, **ENDLESS, **changes)
        self.run = start(registry, self.wanted)
        self.attempt = until(self.submitted, "the submission")
        self.directory = self.home.run_directory(name, skill, self.registry.skill_runs.get(self.attempt.run).ordinal)
        self.trained_on(0)

    def submitted(self):
        """The outstanding attempt, once it is submitted."""
        return next((one for one in self.registry.attempts.outstanding(self.name) if one.flow_run_id), None)

    def updates(self):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return json.loads(self.directory.metrics.read_text().splitlines()[-1])["update"]
        return 0

    def checkpoint(self):
        whole = [path for path in self.directory.checkpoints.glob("step-*") if not is_temporary(path)]
        return max((int(path.name.removeprefix("step-")) for path in whole), default=0)

    def trained_on(self, update):
        until(lambda: self.updates() > update + 20, f"updates after {update}")

    def kill(self, id):
        """Kill the process of a flow run."""
        process_of(id).send_signal(signal.SIGKILL)
