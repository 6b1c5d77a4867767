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
from flowrl_core.specs.continuation import with_all_targets
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
        named: returns a field's name as the user wrote it, given its path.
        notes: a sentence on each override and each skill to retry that currently has no effect.
    """

    spec: CampaignSpec
    knowledge: Knowledge
    context: ProposalContext
    knowledge_file: bytes | None
    needs: Mapping[str, tuple[str, ...]]
    configs: Mapping[str, SkillConfig]
    named: Naming = AS_PATHS
    notes: tuple[str, ...] = ()


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

    What a later start of a campaign does not give is taken from the earlier one (see `specs.continuation`).

    Args:
        named: returns a field's name as the user wrote it, given its path (`training.frames`).

    Raises:
        InputError: the first problem, and its remedy.
    """
    asked = parse_campaign(named, **{**parameters, "targets": parameters.get("targets") or []})
    file = _knowledge_file(asked)
    if file is not None:
        asked = asked.model_copy(update={"knowledge": f"{asked.campaign}.toml"})
    spec = _effective(asked, named)
    knowledge = _open(spec, file)
    content = file.read_bytes() if file is not None else None
    spec = with_all_targets(spec, knowledge.skills, named)
    check_frontier(spec, named)
    base = initial_knowledge(knowledge, spec)
    context = _context(spec, base)
    found = check_campaign(context, named)
    return Request(spec, base, context, content, found.needs, found.configs, named, found.notes)


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
    if spec.names_targets:
        return spec
    problem = "no target is named, and there is no campaign here to resume"
    every = named.setting("all", True)
    remedy = f"Add {named.example('targets', ['SKILL'])} (`flowrl plan SKILL` shows what it needs), or {every}"
    raise InputError("targets", problem, remedy)


def _knowledge_file(asked: CampaignSpec) -> Path | None:
    """Return the file to copy to the home under the campaign's name; None if none is named, or one of the home is.

    Workers run in other directories, perhaps on other machines, and read only the home.
    """
    named = asked.knowledge
    if not is_file_name(named):
        return None
    path = Path(named).expanduser()
    is_kept = not path.exists() and path.name == named and Home.from_environment().knowledge_file(named).is_file()
    return None if is_kept else path


def _open(spec: CampaignSpec, file: Path | None) -> Knowledge:
    """Return the knowledge base of the campaign: of the file, else of the one in the home, else a shipped one."""
    if file is None and is_file_name(spec.knowledge):
        file = Home.from_environment().knowledge_file(spec.knowledge)
    return open_knowledge(spec.env, spec.knowledge if file is None else str(file))
