"""The current state of a campaign: from the registry, its run directories and the processes that execute it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flowrl_cli.views.execution import executions
from flowrl_core.proposals.accepted import grown
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.skill_states import Standing, derive
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.remarks import broken_off, remarks
from flowrl_core.storage.layout import Home, RunDirectory
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.records.skill_runs import Look
from flowrl_core.storage.records.skills import SkillFigures
from flowrl_core.storage.registry import Registry
from flowrl_core.vocabulary.catalogue import vocabulary

__all__ = [
    "RunProgress",
    "SkillView",
    "campaign_knowledge",
    "latest_directory",
    "read_progress",
    "status_json",
    "view_campaign",
]

# The last metrics lines give the speed; one line is about half a kilobyte.
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run's training: the last line of its metrics. `success` is smoothed; None at first."""

    run_frames: int
    success: float | None
    frames_per_second: float | None


@dataclass(frozen=True)
class SkillView:
    """One skill that the campaign's targets need: its state, its figures, its run's looks and progress.

    Attributes:
        remark: the remark on the skill; see `stages.skill.remarks`.
        broken_off: why its run broke off, if it continues or has continued since.
    """

    name: str
    state: Standing
    threshold: float
    figures: SkillFigures
    looks: tuple[Look, ...] = ()
    progress: RunProgress | None = None
    remark: str = ""
    broken_off: str = ""

    @property
    def seconds(self) -> float | None:
        """How long its run took, from its first submission to its end."""
        started, ended = self.figures.started_at, self.figures.ended_at
        return None if started is None or ended is None else ended - started


def view_campaign(
    home: Home, registry: Registry, campaign: Campaign, *, asks_server: bool = False
) -> tuple[SkillView, ...]:
    """Return the skills that the campaign's targets need, prerequisites first.

    Args:
        asks_server: check whether submitted attempts are still executed; see `executions`.
    """
    figures = registry.skills.figures(campaign.name)
    states = derive(campaign_knowledge(registry, campaign), campaign.targets, {n: f.fact for n, f in figures.items()})
    told = remarks(registry, campaign, figures)
    under_way = {
        name: attempt
        for name, state in states.items()
        if state == "submitted" and (attempt := figures[name].fact.attempt) is not None
    }
    if under_way:
        found = executions(home, registry.uuid, under_way, asks_server=asks_server)
        states = {**states, **{name: "stopped" for name, one in found.items() if one.is_over}}
        told = {**told, **{name: one.why for name, one in found.items() if one.is_over or not told[name]}}
    views = [_view_skill(home, registry, campaign, state, figures[name]) for name, state in states.items()]
    return tuple(replace(view, remark=told[view.name], broken_off=broken_off(campaign, view.figures)) for view in views)


def status_json(campaign: Campaign | None, views: tuple[SkillView, ...]) -> dict[str, Any]:
    """Return the output of `flowrl status --json`."""
    if campaign is None:
        return {"campaign": None, "targets": [], "skills": []}
    return {
        "campaign": campaign.name,
        "line": campaign.line,
        "env": campaign.env,
        "targets": list(campaign.targets),
        "skills": [_skill_json(view) for view in views],
    }


def _skill_json(view: SkillView) -> dict[str, Any]:
    figures = view.figures
    return {
        "name": view.name,
        "state": view.state,
        "expert": figures.expert,
        "campaign": figures.run_campaign,
        "run": figures.run,
        "run_frames": figures.run_frames,
        "routed_frames": figures.routed_frames,
        "success": figures.success,
        "success_lower_bound": figures.success_lower_bound,
        "episodes": figures.episodes,
        "looks": figures.looks,
        "threshold": view.threshold,
        "bundle": figures.bundle,
        "merges": [asdict(merge) for merge in figures.merges],
        "started_at": figures.started_at,
        "ended_at": figures.ended_at,
        "seconds": view.seconds,
        "cause": figures.fact.cause,
        "retries": figures.fact.retries,
        "why": view.remark,
        "training": asdict(view.progress) if view.progress else None,
    }


def latest_directory(home: Home, campaign: str, skill: str, ordinal: int) -> RunDirectory:
    """Return the directory of a run: its working directory, or what is kept of it once it has ended."""
    live = home.run_directory(campaign, skill, ordinal)
    return live if os.path.isdir(live.path) else home.archived_run(campaign, skill, ordinal)


def read_progress(metrics: Path) -> RunProgress | None:
    """Return the progress in a metrics file; None before its first complete line."""
    try:
        if not metrics.is_file():  # reading a pipe would block
            return None
        with metrics.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return None
    # The text after the last newline is still being written; the seek may have cut the text before the first.
    lines = [line for raw in tail.split(b"\n")[:-1] if (line := _parse(raw)) is not None]
    if not lines:
        return None
    first, last = lines[0], lines[-1]
    seconds = last.get("time", 0.0) - first.get("time", 0.0)
    speed = (last["run_frames"] - first["run_frames"]) / seconds if seconds > 0 else None
    return RunProgress(last["run_frames"], last.get("success"), speed)


def _view_skill(
    home: Home, registry: Registry, campaign: Campaign, state: Standing, figures: SkillFigures
) -> SkillView:
    threshold = figures.threshold
    if threshold is None:
        threshold = resolve(figures.name, campaign.spec).evaluation.threshold
    if figures.run is None or figures.ordinal is None or figures.run_campaign is None:
        return SkillView(figures.name, state, threshold, figures)
    directory = latest_directory(home, figures.run_campaign, figures.name, figures.ordinal)
    looks = tuple(registry.skill_runs.looks(figures.run))
    return SkillView(figures.name, state, threshold, figures, looks, read_progress(directory.metrics))


def campaign_knowledge(registry: Registry, campaign: Campaign) -> Knowledge:
    """Return the skills as defined in the campaign, even if the file has changed since."""
    skills = {name: record.skill for name, record in registry.skills.of(campaign.name).items()}
    identities = {one.identity for one in registry.proposals.of(campaign.name)}
    proposed = {name: skill for name, skill in skills.items() if skill.identity(campaign.env) in identities}
    given = {name: skill for name, skill in skills.items() if name not in proposed}
    base = Knowledge(campaign.env, f"campaign {campaign.name}", vocabulary(campaign.env), given)
    return grown(base, proposed)[0]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("run_frames"), int) else None
