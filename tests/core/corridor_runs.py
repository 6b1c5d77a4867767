"""Runs in the corridor with tiny shapes, driven as the flow drives them: in this process, and in ones that are killed.

One set of shapes serves all tests, so that they share what is compiled.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil

from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.skills.model import Skill
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, TrainingSpec
from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.process import RunOutcome, process
from flowrl_core.stages.skill.reflect import reflect
from flowrl_core.stages.skill.train import UpdateReport, train
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import own_run
from flowrl_core.storage.records.runs import Attempt
from flowrl_core.storage.registry import Registry

KNOWLEDGE = load_knowledge(shipped("corridor"))

TRAINING = TrainingSpec(
    num_envs=16,
    rollout_length=16,
    width=32,
    world_pool=32,
    snapshot_capacity=32,
    minibatch_size=64,
    episode_limit=40,
    max_experts=16,
    frames=40_000,
    checkpoint_updates=10,
)
FRAMES_PER_UPDATE = TRAINING.num_envs * TRAINING.rollout_length
EVALUATION = EvaluationSpec(min_frames=2_000, episodes=512)


def make_spec(
    campaign: str,
    *targets: str,
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    **others: Any,
) -> CampaignSpec:
    """A campaign in the corridor with the tests' shapes, but for what is given."""
    return CampaignSpec(
        campaign=campaign,
        env="corridor",
        targets=list(targets),
        training=TrainingSpec.model_validate(TRAINING.model_dump() | dict(training or {})),
        evaluation=EvaluationSpec.model_validate(EVALUATION.model_dump() | dict(evaluation or {})),
        **others,
    )


def copy_home(home: Home, root: Path) -> Home:
    """A copy that can be changed; the compiled programs are shared."""
    shutil.copytree(home.root, root, symlinks=True)
    return Home(root)


def begin(home: Home, spec: CampaignSpec, skill: str, *, skills: Mapping[str, Skill] = KNOWLEDGE.skills) -> Attempt:
    """The campaign, started with these parameters, begins an attempt of the skill."""
    with Registry.open(home) as registry:
        registry.campaigns.record(spec, skills)
        registry.campaigns.begin_start(spec)
        return registry.skill_runs.begin(spec.campaign, registry.skills.get(spec.campaign, skill).identity)


def drive(
    home: Home,
    run: int,
    config: SkillConfig,
    *,
    on_update: Callable[[UpdateReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunOutcome | None:
    """The run driven to its end, from wherever it stands; None if it was stopped before."""
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
    with own_run(home.run_directory(record.campaign, record.skill, record.ordinal)):
        if record.verdict is None:
            prepare(home, run, config)
            while verdict(home, run) is None:
                if train(home, run, should_stop=should_stop, on_update=on_update) == "stopped":
                    return None
                evaluate(home, run)
            if config.reflect:
                reflect(home, run)
        return process(home, run)


def learn(
    home: Home, spec: CampaignSpec, skill: str, *, skills: Mapping[str, Skill] = KNOWLEDGE.skills
) -> tuple[int, RunOutcome]:
    """The skill's run from its first attempt to its end: the run's id and the outcome."""
    attempt = begin(home, spec, skill, skills=skills)
    outcome = drive(home, attempt.run, resolve(skill, spec))
    assert outcome is not None
    with Registry.open(home) as registry:
        registry.attempts.end(attempt.id, "verdict")
    return attempt.run, outcome


def facts(home: Home, run: int) -> dict[str, Any]:
    """All that an ended run leaves, but for times: two runs that went the same way leave equal facts."""
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        assert record.remap is not None

        def content(version: int | None) -> str | None:
            return None if version is None else registry.library.version(version).content

        return {
            "verdict": (record.verdict, record.reason, record.run_frames),
            "reflection": record.reflection,
            "looks": [asdict(look) for look in registry.skill_runs.looks(run)],
            "merges": [
                {**asdict(m), **{name: content(getattr(m, name)) for name in ("version", "from_version", "to_version")}}
                for m in registry.skill_runs.merges(run)
            ],
            "versions": {
                index: [(v.content, v.frames, content(v.parent), v.run) for v in registry.library.versions(index)]
                for index in record.remap
            },
            "bundles": [
                (b.skill, b.plan, b.success, b.lower_bound, {i: v.content for i, v in b.versions.items()})
                for b in registry.library.bundles_with(max(record.remap))
            ],
            "metrics": metrics(home.archived_run(record.campaign, record.skill, record.ordinal).metrics),
            "files": sorted(
                str(path.relative_to(home.root)) for top in (home.runs, home.archive) for path in top.rglob("*")
            ),
        }


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file without their times."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


# Other processes

_PRELOADED = ("orbax.checkpoint", "pytest", "flowrl_core.compiled.cache", "flowrl_core.storage.versions")


@dataclass(frozen=True)
class Child:
    """A process of the tests, forked from one that has imported JAX but not used it."""

    process: ForkServerProcess
    report: Path

    def wait(self) -> int:
        """Its exit status: minus the signal that killed it."""
        self.process.join(250)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode

    def answer(self) -> dict[str, Any]:
        """What it reported, once it has ended well."""
        status = self.wait()
        assert status == 0, f"exit status {status}: {self.report.read_text() if self.report.is_file() else ''}"
        return dict(json.loads(self.report.read_text()))


def start(work: Callable[..., dict[str, Any]], *args: Any, report: Path, crash_at: str = "", memory: int = 0) -> Child:
    """A process that does `work(*args)`, a function of this module, with FLOWRL_CRASH_AT set to `crash_at`.

    Args:
        memory: bytes that it may take beyond what it has at its start; 0: all there are.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, __name__])
    process = context.Process(target=_child, args=(work, args, report, crash_at, memory))
    process.start()
    return Child(process, report)


def _child(work: Callable[..., dict[str, Any]], args: Sequence[Any], report: Path, crash_at: str, memory: int) -> None:
    os.environ["FLOWRL_CRASH_AT"] = crash_at
    if memory:
        has = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (has + memory, has + memory))
    try:
        report.write_text(json.dumps(work(*args)))
    except BaseException:
        report.write_text(traceback.format_exc())
        raise


def drive_in_child(home: Home, run: int, config: SkillConfig, die_at_update: int = 0) -> dict[str, Any]:
    """`drive`, killed by SIGKILL right after the update `die_at_update`."""
    from flowrl_core.compiled.cache import compilations

    def on_update(report: UpdateReport) -> None:
        if report.update == die_at_update:
            os.kill(os.getpid(), signal.SIGKILL)

    drive(home, run, config, on_update=on_update)
    return {"compilations": compilations()}


def learn_in_child(home: Home, spec: CampaignSpec, skills: Sequence[str]) -> dict[str, Any]:
    """The skills learned one after another; compilations of the process after each, by two ways of counting."""
    import jax

    from flowrl_core.compiled.cache import compilations

    programs = {"/jax/core/compile/backend_compile_duration": 0, "/jax/compilation_cache/cache_hits": 0}

    def count(event: str, *_: Any, **__: Any) -> None:
        if event in programs:
            programs[event] += 1

    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(count)
    answers = []
    for skill in skills:
        run, outcome = learn(home, spec, skill)
        made, loaded = programs.values()
        answers.append({"run": run, "verdict": outcome.verdict, "compilations": [compilations(), made - loaded]})
    return {"skills": answers}
