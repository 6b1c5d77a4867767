"""The versions a run starts from: the heads, unless they are damaged or measurably worse than a bundle.

Sibling runs train the same experts for other skills, so a head can get worse at its own skill. Before a run is sealed,
the steps before its last one are played with the heads. If even the upper bound of their success is below the lower
bound of a bundle of theirs, the versions of bundles (for each expert, of the bundle with the longest plan that contains
it) are played in the same worlds too, since the plan that the bundle was measured with may be shorter; the better of
the two are used. A version whose files are damaged is replaced by an ancestor, or by a version that a bundle was
measured with.

A run that continues a failed one takes its own expert from where that run stopped. The failed run also trained the
other experts towards this last step, which no head was; but the heads may have improved in sibling runs since. So its
versions, the heads and the bundles' versions are played in the same fresh worlds, and those that reach the last step
most often are used.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flowrl_core.errors import CorruptError
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Plan
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.comparison import LEVEL, EvaluationSetup, play
from flowrl_core.statistics import wilson_upper
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import Bundle, VersionRecord
from flowrl_core.storage.registry import Registry

if TYPE_CHECKING:
    from flowrl_core.learning.evaluation import Evaluation

__all__ = ["HeadsReport", "choose_seeds"]

logger = logging.getLogger(__name__)

_Source = Literal["run", "heads", "bundles"]
_Versions = dict[int, VersionRecord | None]


@dataclass(frozen=True)
class HeadsReport:
    """What was measured before the run, all in the same worlds.

    Attributes:
        episodes: episodes played up to the last step's entry, with each choice of versions.
        successes: those that reached it, by where the prerequisites' parameters came from; `run`: from the failed run.
        upper_bound: of the first choice's success, one-sided at `LEVEL`.
        bundle, bundle_lower_bound: the bundle with the longest plan among the prerequisites, and its lower bound.
        seeded_from: the choice that is used.
    """

    episodes: int
    successes: Mapping[_Source, int]
    upper_bound: float
    bundle: int
    bundle_lower_bound: float
    seeded_from: _Source


def choose_seeds(
    home: Home,
    registry: Registry,
    setup: EvaluationSetup,
    config: SkillConfig,
    seed: int,
    *,
    left: Mapping[int, VersionRecord],
    earlier: VersionRecord | None = None,
) -> tuple[_Versions, HeadsReport | None]:
    """Return the version each expert of the plan starts from (None: initialise it), and the measurement, if any.

    Args:
        setup: the run's plan, and how it is played.
        left: the versions made by the failed run that this one continues; empty if it starts anew.
        earlier: the version from which the skill's own expert starts if it has no head: that of an earlier definition
            or of another skill.

    Raises:
        CorruptError: a version that the run needs is damaged, and so is every possible replacement.
    """
    experts, own = setup.experts, setup.experts[setup.plan.target]
    heads = {index: _whole(home, registry, registry.library.head(index)) for index in experts.values()}
    if heads[own] is None and earlier is not None:
        heads |= _kept(home, registry, {own: earlier}, [own], own=own)
    kept = _kept(home, registry, left, experts.values(), own=own)
    heads |= {index: version for index, version in kept.items() if index == own}
    starts: dict[_Source, _Versions] = {"run": heads | kept, "heads": heads} if kept else {"heads": heads}
    prefix = replace(setup.plan, steps=setup.plan.steps[:-1])
    longest = _longest(registry, {experts[name] for name in prefix.skills})
    first, start = next(iter(starts.items()))
    has_moved = any(start[index] != bundle.versions[index] for index, bundle in longest.items())
    if not has_moved or config.evaluation.head_episodes == 0:
        return start, None  # same versions as in the bundles, or measurement is off
    proven: _Versions = {index: _whole(home, registry, one.versions[index]) for index, one in longest.items()}
    reference = max(longest.values(), key=lambda bundle: (len(bundle.plan.steps), bundle.id))
    if kept:
        starts["bundles"] = heads | proven
    results = {name: _play(home, setup, prefix, start, config, seed) for name, start in starts.items()}
    upper_bound = wilson_upper(results[first].successes, results[first].episodes, LEVEL)
    if not kept and upper_bound < reference.lower_bound:
        starts["bundles"] = heads | proven
        results["bundles"] = _play(home, setup, prefix, starts["bundles"], config, seed)
    source = max(results, key=lambda name: results[name].successes)  # first of a tie
    report = HeadsReport(
        results[source].episodes,
        {name: result.successes for name, result in results.items()},
        upper_bound,
        reference.id,
        reference.lower_bound,
        source,
    )
    _log(setup.plan.target, report)
    return starts[source], report


def _log(skill: str, report: HeadsReport) -> None:
    counts = ", ".join(f"{successes} from {name}" for name, successes in report.successes.items())
    logger.info("%s: episodes of %d that reach its last step: %s", skill, report.episodes, counts)
    if report.seeded_from == "bundles":
        logger.warning("%s: its heads are worse than the versions of bundles, from which it starts", skill)


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


def _longest(registry: Registry, experts: Collection[int]) -> dict[int, Bundle]:
    """For each expert that is in a bundle: the one with the longest plan, the newest of several."""
    found = {index: registry.library.bundles_with(index) for index in sorted(experts)}
    return {index: max(those, key=lambda one: (len(one.plan.steps), one.id)) for index, those in found.items() if those}


def _play(
    home: Home, setup: EvaluationSetup, prefix: Plan, start: _Versions, config: SkillConfig, seed: int
) -> Evaluation:
    """The episodes of the steps before the last one with these versions; the same worlds for each choice."""
    known = {index: version.content for index, version in start.items() if version is not None}
    num_envs = config.training.num_envs
    episodes = -(-config.evaluation.head_episodes // num_envs) * num_envs
    key, room = jax_stream(seed, "heads"), len(setup.experts)
    return play(home, replace(setup, plan=prefix), known, episodes, key, room=room)
