"""What the tests of the registry do with it: skills, attempts, sealed and committed runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowrl_core.programs.model import Program
from flowrl_core.skills.model import Linear, Plan, Skill, Step
from flowrl_core.specs.campaign import CampaignSpec, parse_campaign
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.library import BundleFacts, ExpertResult, Merge
from flowrl_core.storage.records.runs import Attempt
from flowrl_core.storage.registry import Registry


def make_skill(name: str, **changes: Any) -> Skill:
    gain = {f"ach.{name}": Linear(0, 1)}
    return Skill(name, "", **{"program": Program(f"ach.{name}", f"new_ach.{name}"), "gain": gain} | changes)


SKILLS = {name: make_skill(name) for name in ("wood", "table", "pickaxe")}
SIZES = {"observation_size": 10, "num_actions": 4, "width": 8}


def make_spec(**changes: Any) -> CampaignSpec:
    return parse_campaign(**{"env": "corridor", "targets": ["pickaxe"], "limits": {"max_retries": 1}} | changes)


def start(registry: Registry, spec: CampaignSpec, skills: Mapping[str, Skill] = SKILLS) -> Campaign:
    """A start as a campaign's flow makes it, with nothing to reconcile in between."""
    registry.campaigns.record(spec, skills)
    return registry.campaigns.begin_start(spec)


def begin(registry: Registry, name: str, campaign: str = "default", **options: Any) -> Attempt:
    return registry.skill_runs.begin(campaign, registry.skills.get(campaign, name).identity, **options)


def seal(registry: Registry, run: int, names: list[str]) -> None:
    """Seal a run whose plan uses the named skills once each, seeded from their heads."""
    experts = [registry.library.allocate(registry.skills.get("default", name).identity, **SIZES) for name in names]
    seeds = {expert.global_index: expert.head.id if expert.head else None for expert in experts}
    remap = {index: local for local, index in enumerate(sorted(seeds))}
    plan = Plan(names[-1], tuple(Step(name, 1) for name in names))
    registry.skill_runs.seal(run, plan=plan, remap=remap, config=SkillConfig(), seeds=seeds)


def commit(registry: Registry, run: int, contents: dict[int, tuple[str, int]], **changes: Any) -> list[Merge]:
    """Commit results as `{global index: (content, routed frames)}`, seeded as the run was sealed."""
    seeds = registry.skill_runs.get(run).seeds or {}
    results = [ExpertResult(i, content, frames, seeds[i]) for i, (content, frames) in contents.items()]
    ending: dict[str, Any] = {"verdict": "learned", "run_frames": 100, "policy": "most_frames"}
    ending["bundle"] = BundleFacts(0.9, 0.8, 512, 0.75)
    return registry.skill_runs.commit(run, results=results, **ending | changes)


def learn(registry: Registry, names: list[str], contents: dict[int, tuple[str, int]], **changes: Any) -> list[Merge]:
    attempt = begin(registry, names[-1])
    seal(registry, attempt.run, names)
    merges = commit(registry, attempt.run, contents, **changes)
    registry.attempts.end(attempt.id, "verdict")
    return merges
