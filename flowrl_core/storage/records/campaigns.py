"""Records of campaigns."""

from __future__ import annotations

from dataclasses import dataclass

from flowrl_core.specs.campaign import CampaignSpec

__all__ = ["Campaign"]


@dataclass(frozen=True)
class Campaign:
    """A campaign as it was last started.

    Attributes:
        line: the library that it reads and writes: "" is the shared one, its own name a library of its own.
        spec: its parameters; the targets are all that were ever asked of it, `retry` is empty.
        line: the library that it reads and writes: "" is the shared one, its own name a library of its own.
        start: number of its last start, counted over all campaigns: the greatest one was started last.
    """

    name: str
    env: str
    line: str
    spec: CampaignSpec
    start: int
    created_at: float
    started_at: float

    @property
    def targets(self) -> tuple[str, ...]:
        """The skills it shall learn."""
        return tuple(self.spec.targets)
