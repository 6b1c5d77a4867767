"""Evaluate: take one look at the run, recorded before anything acts on it, and derive the verdict of the looks."""

from __future__ import annotations

import logging
import math

import numpy as np

from flowrl_core.errors import StorageError
from flowrl_core.learning.schedule import look_level, look_target, next_action
from flowrl_core.randomness import jax_stream
from flowrl_core.stages.skill.context import RunContext, open_run
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.skill_runs import Look, Verdict
from flowrl_core.storage.registry import Registry

__all__ = ["evaluate", "verdict"]

logger = logging.getLogger(__name__)


def evaluate(home: Home, run: int, *, epoch: int | None = None) -> Look:
    """Evaluate the run's latest checkpoint and return the look; an existing look is returned, not repeated.

    Raises:
        StorageError: there is no checkpoint to evaluate.
        ConflictError: the run was claimed after `epoch`.
    """
    with Registry.open(home) as registry:
        context = open_run(home, registry, run, epoch=epoch)
        looks = registry.skill_runs.looks(run)
        found = context.latest_params()
        if found is None:
            raise StorageError(f"run {context.record.id} has no checkpoint to look at; train it first")
        params, frames = found[0], found[1]["run_frames"]
        if looks and looks[-1].frames >= frames:
            return looks[-1]
        look = _look(context, len(looks) + 1, frames, params)
        crash_point("before_look_record")
        recorded = registry.skill_runs.record_look(run, look, epoch=epoch)
        crash_point("after_look_record")
    logger.info(
        "%s: look %d of %d at %d frames: %d of %d episodes, bound %.3f (needs %.2f)",
        context.plan.target,
        recorded.number,
        context.config.evaluation.looks,
        recorded.frames,
        recorded.successes,
        recorded.episodes,
        recorded.lower_bound,
        context.config.evaluation.threshold,
    )
    return recorded


def verdict(home: Home, run: int) -> Verdict | None:
    """The verdict of the looks so far: learned, failed, or None while training continues.

    Training also continues if the evaluated checkpoint is damaged: only what was judged is published.
    """
    with Registry.open(home) as registry:
        context = open_run(home, registry, run)
        looks = registry.skill_runs.looks(run)
    saved = context.latest_facts()
    if not looks or saved.get("run_frames", 0) < looks[-1].frames:
        return None
    training, spec = context.config.training, context.config.evaluation
    is_hopeless = saved.get("hopeless") is not None
    action = next_action(looks[-1].frames, training.frames, math.nan, looks, spec, is_hopeless=is_hopeless)
    return action if action in ("learned", "failed") else None


def _look(context: RunContext, number: int, frames: int, params: object) -> Look:
    from flowrl_core.learning.evaluation import evaluate as play
    from flowrl_core.statistics import wilson_lower

    spec = context.config.evaluation
    key = jax_stream(context.seed, "look", number)
    result = play(context.learner(), params, context.plan_arrays(), spec.episodes, key)
    attempts, successes = np.array(result.step_attempts), np.array(result.step_successes)
    return Look(
        frames=frames,
        episodes=result.episodes,
        successes=result.successes,
        lower_bound=wilson_lower(result.successes, result.episodes, look_level(spec)),
        level=look_level(spec),
        target=look_target(number - 1, frames, spec),
        steps=tuple(float(x) for x in successes / np.maximum(attempts, 1)),
        worlds=tuple(int(x) for x in np.asarray(key)),
        ends=result.step_ends,
    )
