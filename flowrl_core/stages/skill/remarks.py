"""Remarks on a campaign's skills besides figures: why a skill failed, what interrupted it, who learned it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.skills import SkillFigures
from flowrl_core.storage.registry import Registry

__all__ = ["broken_off", "learned_before", "remarks"]

_MOST = 4
"""Maximum number of differing settings to name."""


def remarks(registry: Registry, campaign: Campaign, figures: Mapping[str, SkillFigures]) -> dict[str, str]:
    """The remark on each skill; empty if there is none."""
    by_others, origins = learned_before(registry, campaign, figures), _origins(registry, campaign, figures)
    return {
        name: "; ".join(filter(None, (by_others.get(name) or _of(campaign, one), origins.get(name))))
        for name, one in figures.items()
    }


def learned_before(registry: Registry, campaign: Campaign, figures: Mapping[str, SkillFigures]) -> dict[str, str]:
    """For each skill that another campaign has learned: which campaign, with which seed.

    Such a skill is not trained again; the remark also names the settings in which this campaign differs.
    """
    specs = {one.name: one.spec for one in registry.campaigns.all()}
    return {
        name: _by_another(campaign.spec, specs[one.run_campaign], name)
        for name, one in figures.items()
        if one.fact.learned and one.run_campaign not in (None, campaign.name) and one.run_campaign in specs
    }


def broken_off(campaign: Campaign, figures: SkillFigures) -> str:
    """What interrupted the skill's run since the campaign's last start, and the outcome; empty if nothing did."""
    fact, most = figures.fact, campaign.spec.limits.max_retries
    if not fact.retries or fact.failed:
        return ""
    if fact.learned:
        return f"was interrupted and retried ({fact.retries} of {most})"
    return f"was interrupted ({fact.reason}); retried ({fact.retries} of {most})"


def _of(campaign: Campaign, figures: SkillFigures) -> str:
    if broke := broken_off(campaign, figures):
        return broke
    return figures.fact.reason or figures.fact.cause


def _origins(registry: Registry, campaign: Campaign, figures: Mapping[str, SkillFigures]) -> dict[str, str]:
    """The version of another expert from which a skill's run started, for each such skill."""
    found = {}
    begun = (name for name, known in registry.skills.of(campaign.name).items() if known.skill.begins_as is not None)
    for name in sorted({*begun, *registry.skills.redefined(campaign.name)}):
        run, expert = figures[name].run, figures[name].expert
        seeds = registry.skill_runs.get(run).seeds if run is not None else None
        seed = (seeds or {}).get(expert) if expert is not None else None
        version = registry.library.version(seed) if seed is not None else None
        if version is not None and version.expert != expert:
            (other,) = (one.name for one in registry.library.experts() if one.global_index == version.expert)
            redefined = f"its definition has changed: started from version {seed}, of the earlier one"
            found[name] = redefined if other == name else f"began as version {seed} of {other}"
    return found


def _by_another(here: CampaignSpec, there: CampaignSpec, skill: str) -> str:
    settings, other = _settings(here, skill), _settings(there, skill)
    differing = [name for name in settings if settings[name] != other[name] and name != "training.seed"]
    is_same_seed = settings["training.seed"] == other["training.seed"]
    parts = [
        f"already learned by campaign {there.campaign} with seed {other['training.seed']}"
        + ("" if is_same_seed else f" (here {settings['training.seed']})"),
        *(f"{name} {other[name]} (here {settings[name]})" for name in differing[:_MOST]),
    ]
    if len(differing) > _MOST:
        parts.append(f"{len(differing) - _MOST} more differing settings")
    return ", ".join(parts)


def _settings(spec: CampaignSpec, skill: str) -> dict[str, Any]:
    """The campaign's settings for the skill's runs, by full field name."""
    config = resolve(skill, spec)
    groups = {"training": config.training, "evaluation": config.evaluation}
    return {f"{group}.{name}": value for group, model in groups.items() for name, value in model.model_dump().items()}
