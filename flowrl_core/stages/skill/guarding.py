"""The guards of a run: those that its skill lists and that are learned, without those that measurably hurt.

A guard was measured alone, in its own plan; in another plan it may take over too often or lead astray. So before a run
is sealed, its plan is played with no guard and with each guard alone, in the same worlds: all of it if the skill's own
expert has a beginning, otherwise the steps before the last one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Skill
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.comparison import EvaluationSetup, play
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import VersionRecord

__all__ = ["GuardsReport", "available", "choose_guards"]

logger = logging.getLogger(__name__)

_ROUNDS = 2
"""Episodes of each measurement, as a multiple of `evaluation.head_episodes`."""
_ERRORS = 1.0
"""Standard errors by which a guard must measure worse to be left out.

One is little evidence, but the two mistakes do not cost the same. Left in iron's plan, guards that measured up to
8 points worse cost 10 points after 1.5M frames (docs/results.md); left out, a neutral one costs nothing.
"""


@dataclass(frozen=True)
class GuardsReport:
    """What was measured before the run.

    Attributes:
        episodes: episodes played each time.
        steps: the number of the plan's steps that were played: all, or all but the last one.
        unguarded: the episodes that finished them without any guard.
        successes: those that did with one guard alone, by guard.
        left_out: the guards that hurt.
    """

    episodes: int
    steps: int
    unguarded: int
    successes: Mapping[str, int]
    left_out: tuple[str, ...]


def available(skill: Skill, config: SkillConfig, learned: Collection[str]) -> tuple[str, ...]:
    """Return the guards that the skill lists and that are learned, by priority; none if they are switched off."""
    return tuple(name for name in skill.guards if name in learned) if config.training.guards else ()


def choose_guards(
    home: Home,
    setup: EvaluationSetup,
    versions: Mapping[int, VersionRecord | None],
    config: SkillConfig,
    seed: int,
) -> tuple[tuple[str, ...], GuardsReport | None]:
    """Return the guards of the plan that do not hurt, and the measurement, if there was any to make.

    Args:
        setup: the run's plan with all available guards, and how it is played.
        versions: the version that each expert starts from, by global index.

    Raises:
        CorruptError: parameters are damaged or missing.
    """
    own = setup.experts[setup.plan.target]
    guards, steps = setup.plan.guards, setup.plan.steps if versions[own] is not None else setup.plan.steps[:-1]
    if not guards or not steps or config.evaluation.head_episodes == 0:
        return guards, None
    contents = {index: version.content for index, version in versions.items() if version is not None}
    num_envs = config.training.num_envs
    episodes = -(-_ROUNDS * config.evaluation.head_episodes // num_envs) * num_envs
    key, room = jax_stream(seed, "guards"), len(setup.experts)

    def finished(*names: str) -> int:
        plan = replace(setup.plan, steps=steps, guards=names)
        return play(home, replace(setup, plan=plan), contents, episodes, key, room=room).successes

    unguarded, successes = finished(), {name: finished(name) for name in guards}
    hurts = [name for name, count in successes.items() if _is_worse(count, unguarded, episodes)]
    report = GuardsReport(episodes, len(steps), unguarded, successes, tuple(hurts))
    _log(setup.plan.target, report)
    return tuple(name for name in guards if name not in hurts), report


def _is_worse(count: int, unguarded: int, episodes: int) -> bool:
    variance = sum(found * (episodes - found) / episodes for found in (count, unguarded))
    return unguarded - count > _ERRORS * math.sqrt(variance)


def _log(skill: str, report: GuardsReport) -> None:
    counts = ", ".join(f"{count} with {name}" for name, count in report.successes.items())
    logger.info(
        "%s: episodes of %d that finish the first %d steps: %d unguarded, %s",
        skill,
        report.episodes,
        report.steps,
        report.unguarded,
        counts,
    )
    for name in report.left_out:
        logger.warning("%s: the guard %s hurts and is left out", skill, name)
