"""Measure a learned skill again as a Prefect task, and report the result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flowrl_core.stages.skill.assessment import Assessment, assess
from flowrl_core.storage.layout import Home
from tasks.artifacts import slug
from tasks.options import IDEMPOTENT
from tasks.orchestration.devices.slots import device_slots
from tasks.orchestration.runs.run_log import show_logs
from tasks.orchestration.runs.termination import until_told

__all__ = ["assess_skill", "final_state", "device"]


@contextlib.contextmanager
def device() -> Iterator[None]:
    """Hold a device for the block."""
    show_logs()
    with device_slots():
        yield


@task(name="assess", **IDEMPOTENT)
def assess_skill(campaign: str, skill: str, of: Literal["bundle", "heads"], episodes: int) -> Assessment:
    """Play the episodes and return the assessment."""
    home = Home.from_environment()
    return until_told(lambda _: assess(home, campaign, skill, of=of, episodes=episodes))


def final_state(skill: str, found: Assessment) -> State:
    """Return the run's final state, and put a table of the figures on its page."""
    row = {
        "skill": skill,
        **({"library": found.line} if found.line else {}),
        "success": found.success,
        "lower bound": found.lower_bound,
        "threshold": found.threshold,
        "episodes": found.episodes,
        "versions": " ".join(f"{expert}:{content}" for expert, content in found.versions.items()),
    }
    create_table_artifact([row], key=f"evaluation-{slug(skill)}", description=f"{skill}, evaluated again")
    return Completed(
        name="StillLearned" if found.is_still_learned else "Worse",
        message=f"success {found.success:.3f}, lower bound {found.lower_bound:.3f} (threshold {found.threshold:.2f})"
        f" in {found.episodes} episodes{f', of the library {found.line}' if found.line else ''}",
    )
