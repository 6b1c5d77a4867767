"""Records of campaigns."""

from __future__ import annotations

from dataclasses import dataclass

from flowrl_core.specs.campaign import CampaignSpec

__all__ = ["Campaign"]


@dataclass(frozen=True)
class Campaign:
    """A campaign as it was last started.

    Attributes:
        line: the library that it reads and writes: "" is the shared one, the campaign's name its own.
        spec: its parameters; `targets` has every target ever given, `retry` is empty.
        start: number of its last start, counted over all campaigns: the greatest was started last.
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
        """The skills to learn."""
        return tuple(self.spec.targets)
