"""Records of runs of all families, and of their attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Attempt", "AttemptEnd", "RunRecord"]

AttemptEnd = Literal["verdict", "infrastructure", "cancelled", "rejected"]


@dataclass(frozen=True)
class Attempt:
    """One submission of a run.

    Attributes:
        campaign: "" if its run belongs to none.
        subject: what the run works on, such as a skill's identity; None: nothing that other runs could work on.
        line: the campaign's line; in each line, one attempt at a time works on a subject.
        name: the run's name.
        number: counts the attempts of this name in the campaign from 1; without a campaign, those of the run.
        key: the idempotency key under which the run is submitted.
        flow_run_id: None until `set_flow_run`; while None, the attempt is submitted (again) under its key.
        interruptions: total count of its infrastructure trouble.
        end, reason, ended_at: None, "" and None while it is outstanding.
    """

    id: int
    run: int
    campaign: str
    subject: str | None
    line: str
    name: str
    number: int
    key: str
    flow_run_id: str | None
    interruptions: int
    end: AttemptEnd | None
    reason: str
    created_at: float
    ended_at: float | None


@dataclass(frozen=True)
class RunRecord:
    """The facts common to runs of all families.

    Attributes:
        campaign: "" if it belongs to none.
        ordinal: counts the runs of this name in all families and campaigns from 1 (names that differ only in case or
            Unicode form count as one); with campaign (or else family) and name it determines the directory.
        subject: what it works on; see `Attempt`.
        config, inputs: None until it is sealed. `inputs`: hash of the inputs it was prepared with.
        result: its result, in its family's format.
        verdict: None while the run is open, even through infrastructure trouble; else a verdict of its family.
        reason: why it failed, in words; "" otherwise.
        epoch: number of processes that have begun to work on it; see `Runs.claim`.
    """

    id: int
    family: str
    campaign: str
    name: str
    ordinal: int
    subject: str | None
    config: Mapping[str, Any] | None
    inputs: str | None
    result: Mapping[str, Any] | None
    verdict: str | None
    reason: str
    created_at: float
    ended_at: float | None
    epoch: int

    @property
    def group(self) -> str:
        """The name of the directory above its own."""
        return self.campaign or self.family
