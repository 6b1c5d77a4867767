"""Playing a plan with chosen versions of its experts; comparing a run's version of an expert with its head."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flowrl_core.errors import CorruptError, StorageError
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.experts import build_remap, stack_experts
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.stages.skill.context import RunContext
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import Bundle, Compared, ExpertResult, Measured, VersionRecord
from flowrl_core.storage.registry import Registry
from flowrl_core.types import View
from flowrl_core.vocabulary.catalogue import vocabulary

if TYPE_CHECKING:
    from flowrl_core.learning.evaluation import Evaluation

__all__ = ["LEVEL", "EvaluationSetup", "compare", "play", "play_with", "setup_of"]

logger = logging.getLogger(__name__)

LEVEL = 0.05
"""One-sided error level of the bound on a success measured once, outside a run's looks, which share their own level
(`evaluation.level`)."""


@dataclass(frozen=True)
class EvaluationSetup:
    """A plan and everything that decides how it is played, except the parameters of its experts.

    Attributes:
        experts: global index of each skill of the plan; may contain more.
        skills: definitions of the plan's skills.
        views: what the expert of each of them sees.
        training: the run's; only the number of environments, the episode limit and the masks matter here.
    """

    env: str
    plan: Plan
    experts: Mapping[str, int]
    skills: Mapping[str, Skill]
    views: Mapping[str, View]
    training: TrainingSpec


def setup_of(registry: Registry, bundle: Bundle) -> EvaluationSetup:
    """The setup with which a bundle was measured."""
    config = registry.skill_runs.get(bundle.run).config
    if config is None:
        raise StorageError(f"run {bundle.run} made bundle {bundle.id} and was never sealed; restore a backup")
    experts = {one.global_index: one for one in registry.library.experts() if one.global_index in bundle.versions}
    definitions = {index: registry.skills.definition(record.identity) for index, record in experts.items()}
    return EvaluationSetup(
        env=registry.skills.definition(bundle.identity).env,
        plan=bundle.plan,
        experts={record.name: index for index, record in experts.items()},
        skills={record.name: definitions[index].skill for index, record in experts.items()},
        views={record.name: record.view for record in experts.values()},
        training=config.training,
    )


def play(
    home: Home, setup: EvaluationSetup, versions: Mapping[int, str], episodes: int, key: np.ndarray, *, room: int = 0
) -> Evaluation:
    """The evaluation of `episodes` episodes of the plan from fresh worlds.

    Args:
        versions: content of each expert of the plan, by global index.
        episodes: a multiple of the number of environments.
        key: decides the worlds and all randomness: versions played with the same key meet the same worlds.
        room: minimum number of experts of the learner, to reuse one compiled for more than the plan's.

    Raises:
        CorruptError: parameters are damaged or missing.
    """
    from flowrl_core.storage.versions import get

    params = {setup.experts[name]: get(home, versions[setup.experts[name]]) for name in setup.plan.skills}
    return play_with(home, setup, params, episodes, key, room=room)


def play_with(
    home: Home, setup: EvaluationSetup, params: Mapping[int, Any], episodes: int, key: np.ndarray, *, room: int = 0
) -> Evaluation:
    """As `play`, with the parameters of each expert of the plan, by global index."""
    from flowrl_core.compiled.cache import compiled_learner
    from flowrl_core.envs.automaton import lower_plan
    from flowrl_core.learning.evaluation import evaluate
    from flowrl_core.learning.shapes import shapes_of

    remap = build_remap(sorted({setup.experts[name] for name in setup.plan.skills}))
    shapes = shapes_of(setup.env, setup.training, max(room, len(remap.global_to_local)))
    stacked = stack_experts([params[index] for index in remap.global_to_local], shapes.num_experts)
    arrays = lower_plan(
        setup.plan,
        setup.skills,
        {name: remap.global_to_local[setup.experts[name]] for name in setup.plan.skills},
        vocabulary(setup.env),
        episode_limit=setup.training.episode_limit,
        use_masks=setup.training.action_masks,
        views=setup.views,
    )
    return evaluate(compiled_learner(home.cache, shapes), stacked, arrays, episodes, key)


def compare(
    home: Home, registry: Registry, context: RunContext, results: Sequence[ExpertResult], before: Compared | None = None
) -> Compared:
    """The heads of the run's experts and, for each that differs from the run's version, both measured on its own skill.

    Everything else is as in the newest bundle of that skill (plan, versions of the other experts), and both meet the
    same fresh worlds, as many as in a look of the run. An expert whose own skill has no bundle, or a damaged one, is
    not measured.

    Args:
        before: an earlier result; its measurements against heads that have not moved since are kept.
    """
    heads = {result.global_index: registry.library.head(result.global_index) for result in results}
    experts = {record.global_index: record for record in registry.library.experts()}
    measured: dict[int, Measured] = dict(before.measured) if before else {}
    for result in results:
        index, head = result.global_index, heads[result.global_index]
        bundle = registry.library.bundle(experts[index].identity, line=experts[index].line)
        if head is None or head.content == result.content or bundle is None:
            measured.pop(index, None)
        elif index not in measured or measured[index].head != head.id:
            measured.pop(index, None)
            try:
                measured[index] = _measure(home, registry, context, bundle, result, head)
            except CorruptError as exc:
                logger.warning("expert %d is not measured: %s", index, exc)
    return Compared({index: head.id if head else None for index, head in heads.items()}, measured)


def _measure(
    home: Home, registry: Registry, context: RunContext, bundle: Bundle, result: ExpertResult, head: VersionRecord
) -> Measured:
    setup, training = setup_of(registry, bundle), context.config.training
    # The bundle's rules in this run's shapes, for which a learner is already compiled.
    rules = {name: getattr(setup.training, name) for name in ("episode_limit", "action_masks")}
    setup, room = replace(setup, training=training.model_copy(update=rules)), len(context.remap.global_to_local)
    others = {index: version.content for index, version in bundle.versions.items()}
    # A head that has moved meets new worlds: repeating a comparison on the same ones would be selection.
    key = jax_stream(context.seed, "merge", result.global_index, head.id)
    episodes = context.config.evaluation.episodes
    with_head, with_version = (
        play(home, setup, others | {result.global_index: content}, episodes, key, room=room)
        for content in (head.content, result.content)
    )
    measured = Measured(head.id, with_head.episodes, with_head.successes, with_version.successes)
    logger.info(
        "%s: %d of %d episodes with its head, %d with this run's version",
        bundle.skill,
        measured.head_successes,
        measured.episodes,
        measured.version_successes,
    )
    return measured
