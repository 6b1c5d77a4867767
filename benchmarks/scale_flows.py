"""The flows of the scale benchmark: the real campaign, monitored, and a skill's run without work.

`benchmarks/scale.py` makes the deployments run these instead of `flows/`. Everything around a run's work is real: its
process, Prefect's engine, the claim of the run, its device slot, its progress bar, the registry's transactions.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flowrl_core.skills.experts import build_remap
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, TrainingSpec
from flowrl_core.stages.skill.train import UpdateReport
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.types import MergePolicy
from flowrl_core.vocabulary.catalogue import vocabulary
from flows.campaign import campaign
from tasks.orchestration.runs.cancellation import note_cancellation
from tasks.skill.preparation import skill_workplace
from tasks.skill.progress import ProgressBar

__all__ = ["campaign", "train_skill"]

REQUESTS = "FLOWRL_SCALE_REQUESTS"
"""A directory in which each process appends a line per request to the file of its flow run: time, method, path."""

_SIZES: dict[str, Any] = {"observation_size": 1, "num_actions": 1, "width": 8}
_FRAMES = 256


@flow(name="train-skill", on_cancellation=[note_cancellation])
def train_skill(
    campaign: str,
    skill: str,
    attempt: int,
    run: int,
    training: TrainingSpec,
    evaluation: EvaluationSpec,
    merge: MergePolicy = "most_frames",
    stall_minutes: float = 1.0,
    reflect: bool = False,
) -> State:
    """Commit a bundle of empty versions for one skill."""
    config = SkillConfig(
        training=training, evaluation=evaluation, merge=merge, stall_minutes=stall_minutes, reflect=reflect
    )
    with skill_workplace(run, attempt, config.stall_minutes) as epoch, ProgressBar(skill) as shown:
        shown.show(UpdateReport(1, _FRAMES, _FRAMES, 1.0, 1.0, 0.0))
        with Registry.open(Home.from_environment()) as registry:
            _learn(registry, campaign, skill, run, config, epoch)
    return Completed(name="Learned")


def _learn(registry: Registry, campaign: str, skill: str, run: int, config: SkillConfig, epoch: int) -> None:
    """Write to the registry what preparing and processing write, without parameters."""
    known = registry.skills.of(campaign)
    env = registry.campaigns.get(campaign).env
    skills = {name: record.skill for name, record in known.items()}
    plan = make_plan(Knowledge(env, campaign, vocabulary(env), skills), skill)
    experts = [registry.library.allocate(known[name].identity, **_SIZES) for name in plan.skills]
    seeds = {expert.global_index: expert.head.id if expert.head else None for expert in experts}
    remap = build_remap(list(seeds)).global_to_local
    registry.skill_runs.seal(run, plan=plan, remap=remap, config=config, seeds=seeds, epoch=epoch)
    registry.skill_runs.commit(
        run,
        verdict="learned",
        run_frames=_FRAMES,
        results=[ExpertResult(index, f"{run}-{index}", 1, seed) for index, seed in seeds.items()],
        policy=config.merge,
        bundle=BundleFacts(1.0, 0.9, 100, 0.5),
        epoch=epoch,
    )


def _count_requests() -> None:
    file = Path(os.environ[REQUESTS]) / os.environ.get("PREFECT__FLOW_RUN_ID", "none")
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def counted(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> Any:
        with file.open("a") as lines:
            lines.write(f"{time.time():.3f} {request.method} {request.url.path}\n")
        return await send(transport, request)

    httpx.AsyncHTTPTransport.handle_async_request = counted  # type: ignore[method-assign, assignment]


if REQUESTS in os.environ:
    _count_requests()
