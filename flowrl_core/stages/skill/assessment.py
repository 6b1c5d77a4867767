"""Assess: measure a learned skill again, with its bundle's versions or the current heads."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from flowrl_core.errors import InputError
from flowrl_core.randomness import jax_stream
from flowrl_core.specs.skill import check_episodes
from flowrl_core.stages.skill.comparison import LEVEL, play, setup_of
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import Bundle, EvaluationOf, EvaluationRecord, VersionRecord
from flowrl_core.storage.registry import Registry

__all__ = ["Assessment", "assess"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assessment:
    """A new measurement of a learned skill.

    Attributes:
        evaluation: the record's id in the registry.
        line: the library line of the experts that played: "" is the shared one.
        versions: global index to the id of the version that played.
        success, lower_bound: share of the episodes that reached the end of the plan, and its bound at `LEVEL`.
        threshold: the value that the bound must reach.
        is_still_learned: whether the bound reaches it.
    """

    evaluation: int
    skill: str
    line: str
    of: EvaluationOf
    versions: dict[int, int]
    episodes: int
    successes: int
    success: float
    lower_bound: float
    threshold: float
    is_still_learned: bool


def assess(home: Home, campaign: str, skill: str, *, of: EvaluationOf, episodes: int) -> Assessment:
    """Play the skill's plan in worlds never measured on before; record and return the result.

    Plan, shapes and rules are those of the run that made the skill's newest bundle. The registry gains one record; no
    head or verdict changes.

    Args:
        of: `bundle`: the versions that the skill was learned with; `heads`: the heads of the same experts.
        episodes: a multiple of that run's number of environments.

    Raises:
        InputError: no such campaign or skill; the skill is not learned yet; `episodes` is not such a multiple.
        CorruptError: a version is damaged or missing.
    """
    with Registry.open(home) as registry:
        identity, line = registry.skills.get(campaign, skill).identity, registry.campaigns.get(campaign).line
        bundle = registry.library.bundle(identity, line=line)
        if bundle is None:
            raise InputError("skill", f"{skill!r} is not learned yet", "Evaluate it after its campaign has learned it")
        versions = _versions(registry, bundle, of)
        record = _measure(home, registry, bundle, of, versions, episodes)
    logger.info(
        "%s: %d of %d episodes with %s, bound %.3f (needs %.2f)",
        skill,
        record.successes,
        record.episodes,
        "its bundle" if of == "bundle" else "the heads",
        record.lower_bound,
        bundle.threshold,
    )
    return Assessment(
        evaluation=record.id,
        skill=skill,
        line=line,
        of=of,
        versions=dict(record.versions),
        episodes=record.episodes,
        successes=record.successes,
        success=record.successes / record.episodes,
        lower_bound=record.lower_bound,
        threshold=bundle.threshold,
        is_still_learned=record.lower_bound >= bundle.threshold,
    )


def _versions(registry: Registry, bundle: Bundle, of: EvaluationOf) -> dict[int, VersionRecord]:
    if of == "bundle":
        return dict(bundle.versions)
    # The run that made the bundle gave each of its experts a head.
    heads = {record.global_index: record.head for record in registry.library.experts() if record.head is not None}
    return {index: heads[index] for index in bundle.versions}


def _measure(
    home: Home,
    registry: Registry,
    bundle: Bundle,
    of: EvaluationOf,
    versions: dict[int, VersionRecord],
    episodes: int,
) -> EvaluationRecord:
    from flowrl_core.statistics import wilson_lower

    setup = setup_of(registry, bundle)
    if episodes < 1:
        raise InputError("episodes", f"{episodes} is not positive", f"Use, for example, {bundle.episodes}")
    check_episodes("episodes", episodes, setup.training.num_envs)
    ids = {index: version.id for index, version in versions.items()}
    number = registry.evaluations.begin(bundle.identity, of, ids, episodes=episodes, level=LEVEL)
    key = jax_stream(number, "assessment")
    contents = {index: version.content for index, version in versions.items()}
    result = play(home, setup, contents, episodes, key)
    attempts, successes = np.array(result.step_attempts), np.array(result.step_successes)
    return registry.evaluations.record(
        number,
        successes=result.successes,
        lower_bound=wilson_lower(result.successes, result.episodes, LEVEL),
        steps=[float(x) for x in successes / np.maximum(attempts, 1)],
        worlds=[int(x) for x in np.asarray(key)],
    )
