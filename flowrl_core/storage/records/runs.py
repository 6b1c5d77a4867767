"""Records of runs and their attempts, whatever their family."""

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
        subject: what the run works on, such as a skill's identity; None: nothing that others could work on.
        line: the campaign's; a subject is worked on once at a time in each line.
        name: the run's.
        number: counts the attempts of this name in the campaign from 1; without a campaign, those of the run.
        key: the idempotency key under which the run is submitted.
        flow_run_id: None until `set_flow_run`: then it is submitted (again) under its key.
        interruptions: infrastructure trouble counted for it, in all.
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
    """What a run of every family has.

    Attributes:
        campaign: "" if it belongs to none.
        ordinal: counts the runs of this name, of all families and campaigns, from 1 (names that differ by case or
            Unicode form only count as one); with campaign, or else family, and name it names the directory.
        subject: what it works on; see `Attempt`.
        config, inputs: None until it is sealed. `inputs`: hash of what it was prepared with.
        result: what it has made, as its family writes it.
        verdict: None while the run is open, also through infrastructure trouble; else a word of its family.
        reason: why it failed, in words; "" otherwise.
        epoch: how many processes have begun to work on it; see `Runs.claim`.
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
        """The name of the directory in which its own lies."""
        return self.campaign or self.family
