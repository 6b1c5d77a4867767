"""What the tests of flows share: a campaign that has learned something, and a browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from flow_runs import end_of

from flowrl_core.specs import CampaignSpec, EvaluationSpec, TrainingSpec
from flowrl_core.storage.registry import Registry
from tasks.orchestration.campaign_runs import start_campaign_run

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


@pytest.fixture(scope="session")
def learned(server) -> Iterator[Registry]:
    """The registry of the server's home, in which the campaign `basics` has learned dig_a, with experts of width 16."""
    spec = CampaignSpec(campaign="basics", env="corridor", targets=["dig_a"], training=TRAINING, evaluation=EVALUATION)
    with Registry.open(server.home) as registry:
        run = asyncio.run(start_campaign_run(registry.uuid, spec))
        assert end_of(run.id).is_completed()
        yield registry


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's chromium, which is installed if need be."""
    if not shutil.which("chromium"):
        if not shutil.which("apt-get") or os.geteuid() != 0:
            pytest.skip("no chromium here, and nobody to install it: `apt-get install chromium` as root")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], check=True, capture_output=True, timeout=280)
    return shutil.which("chromium") or ""
