"""The campaign that the user requests, checked as a whole before anything is written or started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrl_cli.request.inputs import existing_registry, open_knowledge
from flowrl_cli.request.written import Written
from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.skills.knowledge import Knowledge, is_file_name
from flowrl_core.specs.campaign import CampaignSpec, parse_campaign
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.proposals.context import ProposalContext, initial_knowledge, read_context
from flowrl_core.stages.proposals.propose import check_frontier
from flowrl_core.stages.skill.campaign_check import check_campaign
from flowrl_core.storage.layout import Home
from flowrl_core.toml_files import read_toml

__all__ = ["Request", "make_request", "merge_sources"]

_GROUPS = ("training", "evaluation", "limits", "frontier")


@dataclass(frozen=True)
class Request:
    """A campaign that can be started.

    Attributes:
        spec: its parameters; a knowledge base given as a file has the name that it gets in the home.
        knowledge: its initial skills.
        context: its current state: what it has learned, and the proposals made to it.
        knowledge_file: the content to store in the home under that name; None if there is nothing to store.
        needs: the skills that the targets currently need, prerequisites first -> the other skills of their plans.
        configs: the training configuration of each of them, and of each skill of an override.
        idle: overrides, as the user wrote them, that currently change nothing: no target's plan has their skills.
    """

    spec: CampaignSpec
    knowledge: Knowledge
    context: ProposalContext
    knowledge_file: bytes | None
    needs: Mapping[str, tuple[str, ...]]
    configs: Mapping[str, SkillConfig]
    idle: tuple[str, ...] = ()


def merge_sources(config: Path | None, typed: Mapping[str, Any]) -> tuple[dict[str, Any], Written]:
    """Return the parameters of a TOML file with the typed options on top, and the names of the fields for errors.

    Typed values replace those of the file; groups are merged field by field.

    Raises:
        InputError: the file cannot be read, or has an unknown key or an invalid value (file, table and key are named).
    """
    if config is None:
        return dict(typed), Written()
    filed = read_toml(config)
    parse_campaign(Written.of(config, filed, {}), **{"targets": ["any"], **filed})
    merged = {
        name: {field.replace("-", "_"): value for field, value in values.items()} if name in _GROUPS else values
        for name, values in filed.items()
    }
    for name, value in typed.items():
        merged[name] = {**merged.get(name, {}), **value} if name in _GROUPS else value
    return merged, Written.of(config, filed, typed)


def make_request(parameters: Mapping[str, Any], named: Naming = AS_PATHS) -> Request:
    """Return the checked request: names, values, knowledge, a plan for each needed skill, overrides and retries.

    Without targets it is that of the campaign's earlier start.

    Args:
        named: returns a field's name as the user wrote it, given its path (`training.frames`).

    Raises:
        InputError: the first problem, and its remedy.
    """
    spec = _effective(parse_campaign(named, **{**parameters, "targets": parameters.get("targets") or []}), named)
    name, knowledge, content = _knowledge_of(spec)
    spec = spec.model_copy(update={"knowledge": name, "targets": list(dict.fromkeys(spec.targets))})
    check_frontier(spec)
    base = initial_knowledge(knowledge, spec)
    context = _context(spec, base)
    asked = check_campaign(context, named)
    return Request(spec, base, context, content, asked.needs, asked.configs, asked.idle)


def _context(spec: CampaignSpec, base: Knowledge) -> ProposalContext:
    """Return the campaign's current state, if it exists; the start itself reports a registry that cannot be used."""
    _, registry = existing_registry()
    if registry is None:
        return ProposalContext(spec, base)
    with registry:
        return read_context(registry, spec.campaign, spec, base)


def _effective(spec: CampaignSpec, named: Naming) -> CampaignSpec:
    """Return the spec with the settings that a later start inherits from the previous one in the registry."""
    _, registry = existing_registry()
    if registry is not None:
        with registry:
            return registry.campaigns.effective_spec(spec)
    if spec.targets:
        return spec
    problem = "no target is named, and there is no campaign here to resume"
    remedy = f"Add {named.example('targets', ['SKILL'])}; `flowrl plan SKILL` shows what it needs"
    raise InputError("targets", problem, remedy)


def _knowledge_of(spec: CampaignSpec) -> tuple[str, Knowledge, bytes | None]:
    """Return the knowledge base's name in the campaign, its skills, and the content to store in the home, if any.

    A file is copied there: workers run in other directories, perhaps on other machines, and read only the home.
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
