"""Prepare: plan, remap and seed a run, and seal its directory."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from flowrl_core.errors import CorruptError
from flowrl_core.randomness import numpy_stream
from flowrl_core.skills.experts import Remap, build_remap, stack_experts
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.comparison import EvaluationSetup
from flowrl_core.stages.skill.context import RunContext, open_run
from flowrl_core.stages.skill.directory import SkillRunDirectory, run_directory
from flowrl_core.stages.skill.guarding import GuardsReport, available, choose_guards
from flowrl_core.stages.skill.heads import HeadsReport, choose_seeds
from flowrl_core.stages.skill.module import module_text
from flowrl_core.stages.skill.setups import check_plan_fits
from flowrl_core.storage.atomic import (
    crash_point,
    publish_directory,
    remove_directory,
    remove_leftovers,
    temporary_beside,
    write_json,
    write_text,
)
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import VersionRecord
from flowrl_core.storage.records.skill_runs import SkillRunRecord
from flowrl_core.storage.registry import Registry
from flowrl_core.types import View
from flowrl_core.vocabulary.catalogue import environment, vocabulary

__all__ = ["prepare", "run_seed"]

logger = logging.getLogger(__name__)

_PACKAGES = ("flowrl", "jax", "flax", "optax", "orbax-checkpoint", "numpy")


@dataclass(frozen=True)
class _Draft:
    """A run about to be sealed.

    Attributes:
        before: the failed run that it continues, if any.
        experts, skills: global index and definition of each skill of the plan.
        views: what the expert of each skill sees.
    """

    record: SkillRunRecord
    env: str
    line: str
    seed: int
    before: SkillRunRecord | None
    config: SkillConfig
    plan: Plan
    remap: Remap
    experts: Mapping[str, int]
    skills: Mapping[str, Skill]
    views: Mapping[str, View]


def run_seed(seed: int, identity: str, ordinal: int, line: str = "") -> int:
    """Return the seed of a run's random streams, unique in the registry, so that no look reuses a world.

    Args:
        ordinal: in the shared library the run's ordinal, in another line its number among the runs there.
    """
    of_line = ("line", line) if line else ()
    return int(numpy_stream(seed, "run", crc32(identity.encode()), *of_line, ordinal).integers(2**31 - 1))


def prepare(home: Home, run: int, config: SkillConfig, *, epoch: int | None = None) -> Path:
    """The run's sealed directory; an already sealed one is returned unchanged (a damaged seed is made again).

    The plan is built now, from the skills learned by now, and proven by symbolic execution. Dependency experts come
    from their heads (or from a bundle, see `heads`); the skill's own expert is initialised. If the run continues a
    failed one, its own expert comes from that run's version, and the others may too. In the first run of a definition
    its own expert comes from the head of an earlier definition of the skill, if there is one, or else from the head of
    the skill that it begins as.

    Raises:
        PlanError: no valid plan.
        InputError: an expert was made for another observation size, width or number of actions.
        CorruptError: a version that the run starts from is damaged.
        ConflictError: the run was claimed after `epoch`.
    """
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        directory = run_directory(home, record)
        if record.seeds is not None and directory.config.is_file():
            _mend_seed(home, registry, open_run(home, registry, run, epoch=epoch))
            return directory.path
        draft = _draft(registry, record, config)
        setup = EvaluationSetup(draft.env, draft.plan, draft.experts, draft.skills, draft.views, config.training)
        left, earlier = _left(registry, draft.before), _earlier(registry, draft)
        versions, heads = choose_seeds(home, registry, setup, config, draft.seed, left=left, earlier=earlier)
        guards, guarding = choose_guards(home, setup, versions, config, draft.seed)
        draft = _guarded_by(draft, guards)
        versions = {index: versions[index] for index in draft.experts.values()}
        remove_leftovers(directory.path)
        fresh = temporary_beside(directory.path)
        fresh.mkdir(parents=True)
        try:
            _write(home, SkillRunDirectory(fresh), draft, versions, {"heads": heads, "guards": guarding})
            crash_point("before_seal")
            registry.runs.check_claim(run, epoch)  # else the directory below might belong to a run in progress
            if directory.path.exists():  # left by a kill between the two steps below; unsealed, so disposable
                shutil.rmtree(directory.path)
            publish_directory(fresh, directory.path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        crash_point("between_seal_and_record")
        seeds = {index: version.id if version else None for index, version in versions.items()}
        registry.skill_runs.seal(
            run, plan=draft.plan, remap=draft.remap.global_to_local, config=config, seeds=seeds, epoch=epoch
        )
    steps = " -> ".join(f"{step.skill} x{step.n}" for step in draft.plan.steps)
    guarded = f", guarded by {', '.join(draft.plan.guards)}" if draft.plan.guards else ""
    logger.info("prepared %s: %s%s", record.skill, steps, guarded)
    return directory.path


def _left(registry: Registry, before: SkillRunRecord | None) -> dict[int, VersionRecord]:
    """Return the versions that the failed run left, by expert; empty without such a run."""
    merges = registry.skill_runs.merges(before.id) if before is not None else []
    return {merge.expert: registry.library.version(merge.version) for merge in merges}


def _earlier(registry: Registry, draft: _Draft) -> VersionRecord | None:
    """Return what the skill's own expert begins as in the first run of its definition, if not as a random one.

    A later run continues the first, or was asked to start from scratch.
    """
    if min(one.id for one in registry.skill_runs.of(draft.record.identity, line=draft.line)) < draft.record.id:
        return None
    own = draft.experts[draft.record.skill]
    return registry.library.earlier_head(own) or registry.library.beginning(own)


def _seed(registry: Registry, record: SkillRunRecord, seed: int, line: str) -> int:
    """Return the run's seed. In a campaign's own line it does not depend on what else was trained in the home."""
    if not line:
        return run_seed(seed, record.identity, record.ordinal)
    number = sum(one.id <= record.id for one in registry.skill_runs.of(record.identity, line=line))
    return run_seed(seed, record.identity, number, line)


def _draft(registry: Registry, record: SkillRunRecord, config: SkillConfig) -> _Draft:
    campaign = registry.campaigns.get(record.campaign)
    known = registry.skills.of(record.campaign)
    own = registry.skills.definition(record.identity)
    definitions = {name: entry.skill for name, entry in known.items()} | {own.name: own.skill}
    identities = {name: entry.identity for name, entry in known.items()} | {own.name: own.identity}
    learned = [name for name, fact in registry.skills.facts(record.campaign).items() if fact.learned]
    knowledge = Knowledge(campaign.env, f"campaign {record.campaign}", vocabulary(campaign.env), definitions)
    plan = make_plan(knowledge, record.skill, learned=learned)
    check_plan_fits(config, plan, definitions, knowledge.vocabulary)
    plan = replace(plan, guards=available(own.skill, config, learned))
    sizes, view = _sizes(campaign.env, config), config.training.view
    allocated = {
        name: registry.library.allocate(identities[name], line=campaign.line, view=view, **sizes)
        for name in plan.skills
    }
    experts = {name: expert.global_index for name, expert in allocated.items()}
    return _Draft(
        record=record,
        env=campaign.env,
        line=campaign.line,
        seed=_seed(registry, record, config.training.seed, campaign.line),
        before=registry.skill_runs.predecessor(record.id),
        config=config,
        plan=plan,
        remap=build_remap(list(experts.values())),
        experts=experts,
        skills={name: definitions[name] for name in plan.skills},
        views={name: expert.view for name, expert in allocated.items()},
    )


def _guarded_by(draft: _Draft, guards: tuple[str, ...]) -> _Draft:
    """Return the draft with these guards and the experts that then act in its plan."""
    plan = replace(draft.plan, guards=guards)
    experts = {name: draft.experts[name] for name in plan.skills}
    return replace(
        draft,
        plan=plan,
        experts=experts,
        skills={name: draft.skills[name] for name in plan.skills},
        views={name: draft.views[name] for name in plan.skills},
        remap=build_remap(list(experts.values())),
    )


def _sizes(env: str, config: SkillConfig) -> dict[str, int]:
    from flowrl_core.envs.automaton import NUM_STEP_FEATURES

    words = vocabulary(env)
    return {
        "observation_size": words.observation_size + NUM_STEP_FEATURES,
        "num_actions": len(words.actions),
        "width": config.training.width,
    }


def _write(
    home: Home,
    directory: SkillRunDirectory,
    draft: _Draft,
    versions: Mapping[int, VersionRecord | None],
    measured: Mapping[str, HeadsReport | GuardsReport | None],
) -> None:
    names = {index: name for name, index in draft.experts.items()}
    write_json(
        directory.plan,
        {
            **draft.plan.as_dict(),
            "hash": draft.plan.hash,
            "experts": dict(draft.experts),
            "skills": {name: skill.as_dict() for name, skill in draft.skills.items()},
            "views": dict(draft.views),
        },
    )
    write_json(directory.remap, draft.remap.as_dict())
    write_json(directory.config, _config(draft, versions, names, measured))
    words = vocabulary(draft.env)
    write_text(directory.module, module_text(draft.plan, draft.skills, draft.experts, draft.remap, words))
    _write_seed(home, directory, draft, versions)


def _config(
    draft: _Draft,
    versions: Mapping[int, VersionRecord | None],
    names: Mapping[int, str],
    measured: Mapping[str, HeadsReport | GuardsReport | None],
) -> dict[str, Any]:
    packages = (*_PACKAGES, *environment(draft.env).packages)
    told = {
        name: {
            "target": skill.target,
            "actions": list(skill.actions) if draft.config.training.action_masks and skill.actions else "all",
            "canonical_view": View.CANONICAL in draft.views[name],
            "compass": View.COMPASS in draft.views[name],
        }
        for name, skill in draft.skills.items()
    }
    return {
        "campaign": draft.record.campaign,
        "skill": draft.record.skill,
        "identity": draft.record.identity,
        "run": draft.record.ordinal,
        "goes_on_from": draft.before.ordinal if draft.before else None,
        "env": draft.env,
        "seed": draft.seed,
        "parameters": draft.config.model_dump(mode="json"),
        "prior_knowledge": told,
        "seeded_from": {names[i]: version.content if version else "initialised" for i, version in versions.items()},
        **{name: asdict(report) if report else None for name, report in measured.items()},
        "packages": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
    }


def _mend_seed(home: Home, registry: Registry, context: RunContext) -> None:
    """Make a sealed run's seed checkpoint again, from the same versions, if it is damaged."""
    from flowrl_core.storage.manifests import verify

    try:
        verify(context.directory.seed)
    except CorruptError as exc:
        logger.warning("%s; recreated from the same versions", exc)
        seeds = context.record.seeds or {}
        versions = {
            index: registry.library.version(seed) if seed is not None else None for index, seed in seeds.items()
        }
        remove_directory(context.directory.seed)
        _write_seed(home, context.directory, context, versions)


def _write_seed(
    home: Home, directory: SkillRunDirectory, draft: _Draft | RunContext, versions: Mapping[int, VersionRecord | None]
) -> None:
    from flowrl_core.learning.shapes import shapes_of
    from flowrl_core.storage.checkpoints import save_tree

    trees = [
        expert_params(home, versions[index], draft.env, draft.config, draft.seed)
        for index in sorted(draft.remap.global_to_local)
    ]
    room = shapes_of(draft.env, draft.config.training, len(trees)).num_experts
    save_tree(directory.seed, stack_experts(trees, room), metadata={"skill": draft.record.skill})


def expert_params(home: Home, version: VersionRecord | None, env: str, config: SkillConfig, seed: int) -> Any:
    """The parameters of a version, or fresh ones (numpy) for an expert that has none."""
    from flowrl_core.networks.initialisation import initial_params
    from flowrl_core.storage.versions import get

    if version is not None:
        return get(home, version.content)
    sizes = _sizes(env, config)
    rng: np.random.Generator = numpy_stream(seed, "expert")
    return initial_params(rng, sizes["observation_size"], sizes["width"], sizes["num_actions"])
