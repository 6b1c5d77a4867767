"""The versions a run starts from: the heads, unless they are damaged or measurably worse than a bundle.

Sibling runs train the same experts for other skills, so a head can get worse at its own skill. Before a run is sealed,
the steps before its last one are played with the heads. If even the upper bound of their success is below the lower
bound of a bundle of theirs, each of these experts starts from the bundle with the longest plan that contains it. A
version whose files are damaged is replaced by an ancestor, or by a version that a bundle was measured with.

A run that continues a failed one takes its own expert from where that run stopped. The failed run also trained the
other experts towards this last step, which no head was; but the heads may have improved in sibling runs since. So its
versions, the heads and the bundles' versions are played in the same fresh worlds, and those that reach the last step
most often are used.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flowrl_core.errors import CorruptError
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.comparison import LEVEL, EvaluationSetup, play
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import Bundle, VersionRecord
from flowrl_core.storage.registry import Registry

__all__ = ["HeadsReport", "choose_seeds"]

logger = logging.getLogger(__name__)

_Source = Literal["run", "heads", "bundles"]
_Versions = dict[int, VersionRecord | None]


@dataclass(frozen=True)
class HeadsReport:
    """The measurement of the heads; for a run that continues a failed one, of the chosen versions.

    Attributes:
        episodes, successes: episodes played up to the last step's entry, and those that reached it.
        upper_bound: of that success, one-sided at `LEVEL`.
        bundle, bundle_lower_bound: the bundle with the longest plan among the prerequisites, and its lower bound.
        seeded_from: where the prerequisites' parameters come from; `run`: the failed run.
    """

    episodes: int
    successes: int
    upper_bound: float
    bundle: int
    bundle_lower_bound: float
    seeded_from: _Source


def choose_seeds(
    home: Home,
    registry: Registry,
    plan: Plan,
    experts: Mapping[str, int],
    skills: Mapping[str, Skill],
    env: str,
    config: SkillConfig,
    seed: int,
    *,
    left: Mapping[int, VersionRecord],
    earlier: VersionRecord | None = None,
) -> tuple[_Versions, HeadsReport | None]:
    """Return the version each expert of the plan starts from (None: initialise it), and the measurement, if any.

    Args:
        experts: global index of each skill of the plan.
        left: the versions made by the failed run that this one continues; empty if it starts anew.
        earlier: the head of an earlier definition, from which the skill's own expert starts if it has no head.

    Raises:
        CorruptError: a version that the run needs is damaged, and so is every possible replacement.
    """
    heads = {index: _whole(home, registry, registry.library.head(index)) for index in experts.values()}
    own = experts[plan.target]
    if heads[own] is None and earlier is not None:
        heads |= _kept(home, registry, {own: earlier}, [own], own=own)
    kept = _kept(home, registry, left, experts.values(), own=own)
    heads |= {index: version for index, version in kept.items() if index == own}
    starts: dict[_Source, _Versions] = {"run": heads | kept, "heads": heads} if kept else {"heads": heads}
    prefix = Plan(plan.target, plan.steps[:-1])
    before = {experts[name] for name in prefix.skills}
    longest = {index: bundle for index in sorted(before) if (bundle := _longest(registry, index)) is not None}
    first = next(iter(starts.values()))
    has_moved = any(first[index] != bundle.versions[index] for index, bundle in longest.items())
    if not has_moved or config.evaluation.head_episodes == 0:
        return first, None  # same versions as in the bundles, or measurement is off
    if kept:
        starts["bundles"] = heads | _proven(home, registry, longest)
    results = {
        name: _measure(home, prefix, start, experts, skills, env, config, seed) for name, start in starts.items()
    }
    source = max(results, key=lambda name: results[name]["successes"])  # first of a tie
    result = results[source]
    reference = max(longest.values(), key=lambda bundle: (len(bundle.plan.steps), bundle.id))
    counts = result["successes"], result["episodes"]
    logger.info("%s: its last step is reached in %d of %d episodes (from %s)", plan.target, *counts, source)
    if not kept and result["upper_bound"] < reference.lower_bound:
        logger.warning(
            "%s: its heads are worse than bundle %d proved; starting from bundles", plan.target, reference.id
        )
        source, starts["bundles"] = "bundles", heads | _proven(home, registry, longest)
    proved = reference.lower_bound
    return starts[source], HeadsReport(**result, bundle=reference.id, bundle_lower_bound=proved, seeded_from=source)


def _kept(
    home: Home, registry: Registry, left: Mapping[int, VersionRecord], wanted: Collection[int], *, own: int
) -> _Versions:
    """Return the intact versions in `left` of the wanted experts; empty if the run's own one is damaged."""
    try:
        kept = {index: _whole(home, registry, left[index]) for index in wanted if index in left}
    except CorruptError as exc:
        logger.warning("%s; beginning anew", exc)
        return {}
    return kept if own in kept else {}


def _proven(home: Home, registry: Registry, longest: Mapping[int, Bundle]) -> _Versions:
    return {index: _whole(home, registry, bundle.versions[index]) for index, bundle in longest.items()}


def _whole(home: Home, registry: Registry, version: VersionRecord | None) -> VersionRecord | None:
    """The version; if its files are damaged, the first intact one among its ancestors and its expert's bundles."""
    from flowrl_core.storage.manifests import verify

    if version is None:
        return None
    for candidate in _stand_ins(registry, version):
        try:
            verify(home.version(candidate.content))
        except CorruptError as exc:
            logger.warning("%s; looking for another version of expert %d", exc, version.expert)
            continue
        if candidate != version:
            logger.warning("starting from version %d instead of %d", candidate.id, version.id)
        return candidate
    raise CorruptError(
        f"version {version.content} of expert {version.expert} is damaged, and so is every other that it could start "
        f"from; restore {home.versions} from a backup"
    )


def _stand_ins(registry: Registry, version: VersionRecord) -> Iterator[VersionRecord]:
    """The version, its ancestors, then the expert's versions in bundles, newest first."""
    found = version
    yield found
    while found.parent is not None:
        found = registry.library.version(found.parent)
        yield found
    for bundle in registry.library.bundles_with(version.expert):
        yield bundle.versions[version.expert]


def _longest(registry: Registry, index: int) -> Bundle | None:
    bundles = registry.library.bundles_with(index)
    return max(bundles, key=lambda bundle: (len(bundle.plan.steps), bundle.id), default=None)


def _measure(
    home: Home,
    prefix: Plan,
    heads: Mapping[int, VersionRecord | None],
    experts: Mapping[str, int],
    skills: Mapping[str, Skill],
    env: str,
    config: SkillConfig,
    seed: int,
) -> dict[str, Any]:
    from flowrl_core.statistics import wilson_upper

    setup = EvaluationSetup(env, prefix, experts, skills, config.training)
    known = {index: version.content for index, version in heads.items() if version is not None}
    num_envs = config.training.num_envs
    episodes = -(-config.evaluation.head_episodes // num_envs) * num_envs
    result = play(home, setup, known, episodes, jax_stream(seed, "heads"), room=len(experts))
    return {
        "episodes": result.episodes,
        "successes": result.successes,
        "upper_bound": wilson_upper(result.successes, result.episodes, LEVEL),
    }
