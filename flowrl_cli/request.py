"""What a person asks of a campaign, checked as a whole before anything is written or started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrl_cli.inputs import check_known, existing_registry, open_knowledge, read_toml
from flowrl_core.errors import InputError
from flowrl_core.skills.frontier import prerequisites
from flowrl_core.skills.goals import check_provided, check_target
from flowrl_core.skills.knowledge import Knowledge, is_file_name
from flowrl_core.specs import CampaignSpec, SkillConfig, parse_campaign, resolve
from flowrl_core.stages.proposing import check_frontier
from flowrl_core.stages.scene import Scene, base_of, read_scene
from flowrl_core.storage.layout import Home

__all__ = ["Request", "make_request", "merge_sources"]

_GROUPS = ("training", "evaluation", "limits", "frontier")


@dataclass(frozen=True)
class Request:
    """A campaign that can be started.

    Attributes:
        spec: its parameters; a knowledge base that is a file has the name that it gets in the home.
        knowledge: the skills that it begins with.
        scene: how it stands: what it has learned, and what was proposed to it.
        knowledge_file: the content to put into the home under that name; None if nothing is to be put there.
        needs: the skills that the targets need as things are, prerequisites first -> the other skills of their plans.
        configs: what each of them, and each skill of an override, would be trained with.
    """

    spec: CampaignSpec
    knowledge: Knowledge
    scene: Scene
    knowledge_file: bytes | None
    needs: Mapping[str, tuple[str, ...]]
    configs: Mapping[str, SkillConfig]


def merge_sources(config: Path | None, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a TOML file with what was typed on top: values replace, groups are merged field by field.

    Raises:
        InputError: the file cannot be read, or has a key or value that no campaign takes (file, table, key named).
    """
    if config is None:
        return dict(typed)
    merged = read_toml(config)
    try:
        parse_campaign(**{"targets": ["any"], **merged})
    except InputError as exc:
        raise InputError(f"{config}: {exc.field}", exc.problem, exc.remedy) from exc
    for name, value in typed.items():
        merged[name] = {**merged.get(name, {}), **value} if name in _GROUPS else value
    return merged


def make_request(parameters: Mapping[str, Any]) -> Request:
    """The checked request: names, values, knowledge, a plan for each needed skill, overrides and retries.

    Without targets it is that of the campaign's earlier start.

    Raises:
        InputError: the first thing that is wrong, and its remedy.
    """
    spec = parse_campaign(**parameters) if parameters.get("targets") else _earlier(parameters)
    name, knowledge, content = _knowledge_of(spec)
    spec = spec.model_copy(update={"knowledge": name, "targets": list(dict.fromkeys(spec.targets))})
    check_frontier(spec)
    base = base_of(knowledge, spec)
    scene = _scene(spec, base)
    known = scene.knowledge
    for target in spec.targets:
        check_target(target, known.skills, known.vocabulary)
    for name in spec.retry:
        check_known("retry", "skill", name, known.skills)
    if spec.frontier.kind == "knowledge":
        check_provided(known, spec.targets)
    needs = prerequisites(known, [name for name in scene.frontier.by.values() if name is not None])
    overridden = _overridden(spec.overrides, known)
    configs = {name: resolve(name, spec, **known.settings(name)) for name in (*needs, *overridden)}
    return Request(spec, base, scene, content, needs, configs)


def _scene(spec: CampaignSpec, base: Knowledge) -> Scene:
    """The campaign as it stands, if there is one; of a registry that cannot be used the start itself will tell."""
    _, registry = existing_registry()
    if registry is None:
        return Scene(spec, base)
    with registry:
        return read_scene(registry, spec.campaign, spec, base)


def _earlier(parameters: Mapping[str, Any]) -> CampaignSpec:
    """The campaign's earlier start, which a start without targets goes on with."""
    _, registry = existing_registry()
    if registry is None:
        problem = "no target is named, and no campaign was started here to go on with"
        raise InputError("target", problem, "Add --target SKILL; `flowrl plan SKILL` shows what it needs")
    with registry:
        return registry.settled(parse_campaign(**{**parameters, "targets": []}))


def _knowledge_of(spec: CampaignSpec) -> tuple[str, Knowledge, bytes | None]:
    """The name that the knowledge base has for the campaign, its skills, and what is to be put into the home for it.

    A file is copied there: workers run in other directories, perhaps on other machines, and read nothing else.
    """
    named = spec.knowledge
    if not is_file_name(named):
        return named, open_knowledge(spec.env, named), None
    path = Path(named).expanduser()
    if not path.exists() and path.name == named:
        kept = Home.from_environment().knowledge_file(named)
        if kept.is_file():
            return named, open_knowledge(spec.env, str(kept)), None
    knowledge = open_knowledge(spec.env, str(path))
    return f"{spec.campaign}.toml", knowledge, path.read_bytes()


def _overridden(overrides: Sequence[str], knowledge: Knowledge) -> list[str]:
    names = [override.partition(".")[0] for override in overrides if "." in override.partition("=")[0]]
    for name in names:
        check_known("overrides", "skill", name, knowledge.skills)
    return names
