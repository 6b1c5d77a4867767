"""Progress bars of a skill's run in the Prefect UI."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.runtime import flow_run

from flowrl_core.stages.skill.train import UpdateReport
from tasks.artifacts import slug

__all__ = ["ProgressBar", "end_progress"]

logger = logging.getLogger(__name__)

_EVERY_S = 2.0


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
