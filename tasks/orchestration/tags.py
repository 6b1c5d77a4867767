"""The tags and names by which FlowRL finds its flow runs again."""

from __future__ import annotations

import os
import socket

__all__ = ["APPROVAL", "FLOWRL", "campaign_tags", "registry_tag", "is_from_here", "skill_tags", "worker_name"]

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


def worker_name(pool: str) -> str:
    """The name of this process as a worker: pool, machine and process number."""
    return f"{pool}@{_machine()}:{os.getpid()}"


def is_from_here(worker: str) -> bool:
    """Whether a worker of this name runs, or ran, on this machine."""
    return f"@{_machine()}:" in worker


def _machine() -> str:
    return os.environ.get("FLOWRL_MACHINE") or socket.gethostname()
