"""The tags by which FlowRL finds its flow runs again."""

from __future__ import annotations

__all__ = ["APPROVAL", "FLOWRL", "campaign_tags", "registry_tag", "skill_tags"]

FLOWRL = "flowrl"
"""On every flow run of FlowRL."""

APPROVAL = "approval"
"""On a skill's run that waited, or waits, for a person's approval."""


def registry_tag(registry: str) -> str:
    """On every run for the registry with this uuid."""
    return f"registry:{registry}"


def campaign_tags(registry: str, campaign: str) -> list[str]:
    """All of a campaign's runs have these, its own and those of its skills."""
    return [FLOWRL, registry_tag(registry), f"campaign:{campaign}"]


def skill_tags(registry: str, campaign: str, skill: str) -> list[str]:
    """The tags of one skill's run."""
    return [*campaign_tags(registry, campaign), f"skill:{skill}"]
