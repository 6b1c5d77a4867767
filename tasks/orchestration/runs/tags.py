"""The tags and names by which FlowRL finds its flow runs again."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

__all__ = [
    "APPROVAL",
    "CAMPAIGN_FLOW",
    "FLOWRL",
    "campaign_tags",
    "is_from_here",
    "is_of_other_registry",
    "registry_tag",
    "worker_name",
]

_REGISTRY = "registry:"

FLOWRL = "flowrl"
"""Tag of every flow run of FlowRL."""

APPROVAL = "approval"
"""Tag of a run that waits, or has waited, for a person's approval."""

CAMPAIGN_FLOW = "campaign"
"""Name of the flow of campaigns, which flows/campaign.py defines."""


def registry_tag(registry: str) -> str:
    """Return the tag of every run for the registry with this uuid."""
    return f"{_REGISTRY}{registry}"


def is_of_other_registry(tags: Iterable[str], registry: str | None) -> bool:
    """Whether the tags name a registry other than the one with this uuid (None: there is none yet)."""
    named = [tag for tag in tags if tag.startswith(_REGISTRY)]
    return bool(named) and (registry is None or registry_tag(registry) not in named)


def campaign_tags(registry: str, campaign: str) -> list[str]:
    """Return the tags of all of a campaign's runs: its own, and those that it has submitted."""
    return [FLOWRL, registry_tag(registry), f"campaign:{campaign}"]


def worker_name(pool: str) -> str:
    """Return this process's name as a worker: pool, machine and process number."""
    return f"{pool}@{_machine()}:{os.getpid()}"


def is_from_here(worker: str) -> bool:
    """Whether a worker of this name runs, or ran, on this machine."""
    return f"@{_machine()}:" in worker


def _machine() -> str:
    return os.environ.get("FLOWRL_MACHINE") or socket.gethostname()
