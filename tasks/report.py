"""Artifacts in the Prefect UI: the progress of a run and the table of a campaign."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from prefect.artifacts import acreate_table_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.runtime import flow_run

from flowrl_core.stages.skill.train import UpdateReport
from flowrl_core.storage.records.proposals import ProposalRecord
from flowrl_core.storage.records.skills import SkillFigures

__all__ = ["ProgressBar", "end_progress", "report_campaign", "report_proposals", "slug"]

logger = logging.getLogger(__name__)

_EVERY_S = 2.0
_MOST_PROPOSALS = 200
"""Maximum number of rows: a page displays 300 KB well."""


class ProgressBar:
    """A progress bar on the page of the task that creates it, updated in place.

    It posts from a thread of its own: training does not wait for an unreachable server.
    """

    def __init__(self, skill: str) -> None:
        self._key = f"training-{slug(skill)}"
        self._skill = skill
        self._latest: UpdateReport | None = None
        self._end = threading.Event()
        # With the task's context, which assigns the artifact to the task.
        post = partial(copy_context().run, self._post)
        self._thread = threading.Thread(target=post, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._artifact: UUID | None = None
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(_EVERY_S)

    def show(self, report: UpdateReport) -> None:
        """Post the latest update; an older one not posted yet is dropped."""
        self._latest = report

    def _post(self) -> None:
        posted = None
        while True:
            is_last = self._end.wait(_EVERY_S)
            if (latest := self._latest) is not None and latest is not posted:
                posted = latest
                self._try(latest)
            if is_last:
                return

    def _try(self, report: UpdateReport) -> None:
        percent = min(100.0, 100.0 * report.run_frames / report.budget)
        text = f"{self._skill}: {report.said}, {report.run_frames} frames"
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = cast(UUID, created)  # a coroutine only if called inside one
            else:
                update_progress_artifact(self._artifact, progress=percent, description=text)
        except Exception as exc:
            logger.debug("progress not shown: %r", exc)


def end_progress(words: str) -> None:
    """Fill the progress bars of this flow run and show how it ended: it may have needed less than its budget."""
    whose = {"flow_run_id": {"any_": [flow_run.id]}, "type": {"any_": ["progress"]}}
    try:
        found = get_client(sync_client=True).read_artifacts(artifact_filter=ArtifactFilter.model_validate(whose))
        for artifact in found:
            update_progress_artifact(artifact.id, progress=100.0, description=words)
    except Exception as exc:
        logger.debug("progress not ended: %r", exc)


async def report_campaign(
    campaign: str, states: Mapping[str, str], figures: Iterable[SkillFigures], told: Mapping[str, str]
) -> None:
    """Show the campaign's skills as a table on its run's page; `told`: the remark on each skill."""
    rows = [
        {
            "skill": one.name,
            "state": states[one.name],
            "success": one.success,
            "lower bound": one.success_lower_bound,
            "threshold": one.threshold,
            "frames": one.run_frames,
            "looks": one.looks,
            "why": told[one.name],
        }
        for one in figures
    ]
    await acreate_table_artifact(rows, key=f"campaign-{slug(campaign)}", description=f"Campaign {campaign}")


async def report_proposals(campaign: str, proposals: Sequence[ProposalRecord]) -> None:
    """Show the campaign's latest proposals and each gate's findings as a table on its run's page."""
    rows = [
        {
            "round": one.round,
            "proposal": one.name,
            "state": one.state,
            "model": one.model,
            "refused": " ".join(f"[{finding.gate}: {finding.code}] {finding.sentence}" for finding in one.refusals),
            "repaired": " ".join(f"[{finding.gate}: {finding.code}] {finding.sentence}" for finding in one.repairs),
        }
        for one in proposals[-_MOST_PROPOSALS:]
    ]
    await acreate_table_artifact(rows, key=f"proposals-{slug(campaign)}", description=f"Proposals to {campaign}")


def slug(name: str) -> str:
    """Return the name as an artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
