"""Process: commit a run's results, archive its records and remove its directory.

It decides nothing about learning; under the merge policy `evaluated` it measures the run's versions against the heads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.skills.experts import expert_slice
from flowrl_core.stages.skill.comparison import compare
from flowrl_core.stages.skill.context import RunContext, open_run
from flowrl_core.stages.skill.directory import run_directory
from flowrl_core.stages.skill.evaluate import verdict as verdict_of
from flowrl_core.stages.skill.family import SKILLS
from flowrl_core.stages.timing import mark, write_timing
from flowrl_core.storage.archive import archive
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, ExpertResult, Merge
from flowrl_core.storage.records.skill_runs import Look, Verdict
from flowrl_core.storage.registry import Registry
from flowrl_core.text import counted

__all__ = ["RunOutcome", "process"]

logger = logging.getLogger(__name__)

_COMMITS = 4
"""Attempts to commit while other runs move the heads."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        merges: its effect on each of its experts.
        success, success_lower_bound: of its last look.
        reason: why it was not learned; empty otherwise.
    """

    verdict: Verdict
    merges: tuple[Merge, ...]
    success: float
    success_lower_bound: float
    run_frames: int
    reason: str


def process(home: Home, run: int, *, epoch: int | None = None) -> RunOutcome:
    """Commit a run that has a verdict, archive it and remove its directory. Safe to repeat after a kill at any point.

    Raises:
        StorageError: the run has no verdict yet.
        ConflictError: it was claimed after `epoch`.
    """
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        if record.verdict is None:
            _commit(home, registry, run, epoch)
            record = registry.skill_runs.get(run)
        crash_point("after_registry_commit")
        kept = home.archived_run(record.campaign, record.skill, record.ordinal)
        archive(run_directory(home, record), kept, SKILLS.kept)
        merges, look = registry.skill_runs.merges(run), registry.skill_runs.looks(run)[-1]
    assert record.verdict is not None
    for merge in merges:
        logger.info("expert %d (%s): %s at %d frames", merge.expert, merge.name, merge.action, merge.frames)
    return RunOutcome(record.verdict, tuple(merges), look.success, look.lower_bound, record.run_frames, record.reason)


def _commit(home: Home, registry: Registry, run: int, epoch: int | None) -> None:
    context = open_run(home, registry, run, epoch=epoch)
    verdict = verdict_of(home, run)
    if verdict is None:
        raise StorageError(f"run {run} has no verdict yet; train and evaluate it first")
    look = registry.skill_runs.looks(run)[-1]
    mark("ended")
    write_timing(context.directory)
    results = _publish(home, context)
    ending: dict[str, Any] = {"verdict": verdict, "run_frames": look.frames, "epoch": epoch}
    if verdict == "learned":
        ending["bundle"] = BundleFacts(
            look.success, look.lower_bound, look.episodes, context.config.evaluation.threshold
        )
    else:
        ending["reason"] = _why(context, registry.skill_runs.looks(run))
    _commit_on_heads(home, registry, context, results, ending)


def _commit_on_heads(
    home: Home, registry: Registry, context: RunContext, results: list[ExpertResult], ending: Mapping[str, Any]
) -> None:
    """Commit; retry if another run moved a head meanwhile."""
    policy, compared = context.config.merge, None
    for remaining in reversed(range(_COMMITS)):
        registry.runs.check_claim(context.record.id, context.epoch)
        if policy == "evaluated" and ending["verdict"] == "learned":
            compared = compare(home, registry, context, results, compared)
            crash_point("after_comparison")
        try:
            registry.skill_runs.commit(context.record.id, results=results, policy=policy, compared=compared, **ending)
            return
        except ConflictError as exc:
            if not remaining:
                raise
            logger.info("%s; once more", exc)


def _publish(home: Home, context: RunContext) -> list[ExpertResult]:
    """Write every expert of the run to the store of versions, each atomically; return the results."""
    from flowrl_core.storage.versions import put

    found = context.latest_params()
    if found is None:
        raise StorageError(f"run {context.record.id} has no checkpoint to publish; train it first")
    params, facts = found
    names = {index: name for name, index in context.experts.items()}
    results = []
    for index, local in context.remap.global_to_local.items():
        metadata = {"expert": index, "skill": names[index], "env": context.env}
        content = put(home, expert_slice(params, local), metadata=metadata)
        crash_point("after_version")
        assert context.record.seeds is not None
        results.append(ExpertResult(index, content, facts["routed_frames"][local], context.record.seeds[index]))
    return results


def _why(context: RunContext, looks: list[Look]) -> str:
    best, needed = max(look.lower_bound for look in looks), f"{context.config.evaluation.threshold} was needed"
    used = f"{looks[-1].frames:,} of {context.config.training.frames:,} frames"
    if found := context.latest_facts().get("hopeless"):
        so_far = f"at {used} its success was {found['now']:.2f} and the forecast for the end {found['final']:.2f}"
        return f"hopeless: {so_far}; {needed}; retry it with more frames, or with stop_hopeless off to train on"
    return f"{used} and {counted(len(looks), 'look')} gave a best bound of {best:.3f}; {needed}"
