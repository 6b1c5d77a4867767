"""Settle attempts whose runs have ended. If the registry and Prefect disagree, the registry's verdict wins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.runs import Attempt, AttemptEnd
from flowrl_core.storage.registry import Registry
from tasks.campaign.campaign_runs import live_campaign_runs
from tasks.orchestration.runs.approval import is_rejected
from tasks.orchestration.runs.submission import (
    UNHEARD_S,
    age,
    end_cancelled,
    is_unheard,
    read_runs,
    run_again,
)
from tasks.skill.processing import tidy

__all__ = ["NO_ROOM", "Reconciler"]

logger = logging.getLogger(__name__)

NO_ROOM = "NoRoom"
"""State name of a run that found the disk full: a retry would end the same way."""

# A worker reports a crash twice, seconds apart: a run rescheduled in between would be marked as crashed again.
_FRESH_S = 5.0
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Reconciler:
    """Ends the attempts whose runs have ended, or reschedules the runs if a retry is worthwhile.

    Attributes:
        send: submits an attempt under its key, again if necessary.
        wake_in: requests another call after the given seconds.
    """

    client: PrefectClient
    home: Home
    registry: Registry
    campaign: Campaign
    send: Callable[[Attempt], Awaitable[FlowRun]]
    wake_in: Callable[[float], None]

    async def reconcile(self) -> str:
        """Settle the campaign's own attempts, and leftover attempts of other campaigns at skills that it shares.

        Returns:
            The message of a run that found the disk full; empty if there is none.
        """
        mine = self.registry.attempts.outstanding(self.campaign.name)
        others = [
            fact.attempt
            for fact in self.registry.skills.facts(self.campaign.name).values()
            if fact.attempt is not None and fact.attempt.campaign != self.campaign.name
        ]
        runs = await read_runs(self.client, [one.flow_run_id for one in (*mine, *others) if one.flow_run_id])
        for attempt in mine:
            # Without an id, the campaign was killed between writing the row and recording the submission.
            run = runs.get(attempt.flow_run_id) if attempt.flow_run_id else await self.send(attempt)
            await self._settle_own(attempt, run)
        for attempt in others:
            await self._settle_foreign(attempt, runs.get(attempt.flow_run_id or ""))
        full = [run.state.message or "" for run in runs.values() if run.state is not None and _found_no_room(run)]
        return full[0] if full else ""

    async def _settle_own(self, attempt: Attempt, run: FlowRun | None) -> None:
        if run is not None and is_unheard(run):
            await end_cancelled(self.client, [run])
            self.wake_in(0.0)
            return
        if run is not None and _is_asleep(run):
            logger.warning("%s was scheduled for the far future: was the clock changed? It starts now", attempt.name)
            await run_again(self.client, run, delay=0.0)
            return
        if run is not None and not _is_over(run):
            return
        if self.registry.skill_runs.get(attempt.run).verdict is not None:
            await asyncio.to_thread(tidy, self.home, attempt.run)
            self.registry.attempts.end(attempt.id, "verdict")
            return
        if run is not None and _is_fresh_crash(run):
            self.wake_in(_FRESH_S)
            return
        end, reason = _how(run)
        is_worth_it = end == "infrastructure" and run is not None and not _found_no_room(run)
        if is_worth_it and run is not None and await self._goes_on(attempt, run):
            self.registry.attempts.count_retry(attempt.id, reason)
            logger.warning("%s was interrupted (%s); the same run continues", attempt.name, reason)
            return
        logger.warning("%s: attempt %d is over: %s, %s", attempt.name, attempt.number, end, reason)
        self.registry.attempts.end(attempt.id, end, reason)

    async def _goes_on(self, attempt: Attempt, run: FlowRun) -> bool:
        """Whether the interrupted Prefect run is scheduled again, after a pause that grows with each retry."""
        fact = self.registry.skills.facts(self.campaign.name).get(attempt.name)
        if fact is None or fact.identity != attempt.subject or fact.retries >= self.campaign.spec.limits.max_retries:
            return False
        return await run_again(self.client, run, delay=min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 4**fact.retries))

    async def _settle_foreign(self, attempt: Attempt, run: FlowRun | None) -> None:
        """End the leftover attempt of a campaign that no longer runs; a live campaign settles its own."""
        if run is not None and not _is_over(run):
            return
        if await live_campaign_runs(self.client, self.registry.uuid, attempt.campaign):
            return
        end, reason = _how(run)
        logger.info("%s: attempt of campaign %s, which has ended, is over: %s", attempt.name, attempt.campaign, reason)
        self.registry.attempts.end(attempt.id, end, reason)


def _is_over(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _found_no_room(run: FlowRun) -> bool:
    return run.state is not None and run.state.name == NO_ROOM


def _is_fresh_crash(run: FlowRun) -> bool:
    # If the clock was set in between, the error is harmless: at worst one crash counts as two.
    return run.state is not None and run.state.is_crashed() and 0.0 <= age(run.state) < _FRESH_S


def _is_asleep(run: FlowRun) -> bool:
    """Whether it waits for an unintended time: the clock was set back after it was scheduled."""
    if run.state is None or not run.state.is_scheduled():
        return False
    scheduled = run.state.state_details.scheduled_time
    ahead = scheduled.timestamp() - datetime.now(UTC).timestamp() if scheduled else 0.0
    return ahead > _LONGEST_DELAY_S + UNHEARD_S


def _how(run: FlowRun | None) -> tuple[AttemptEnd, str]:
    """Return how a run without a verdict ended, and why."""
    if run is None or run.state is None:
        return "infrastructure", "Prefect does not know the run"
    message = (run.state.message or "")[:_LONGEST_REASON]
    if is_rejected(run):
        return "rejected", message or "rejected"
    if run.state.is_cancelled():
        return "cancelled", message or "cancelled"
    if run.state.is_completed():
        return "infrastructure", "the run completed without a verdict"
    return "infrastructure", f"{run.state.name}: {message}"
