"""The lines at the end of a campaign: speed-up, handovers, starts, conditions."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from flowrl_cli.views.tables import MISSING, seconds
from flowrl_cli.views.view import SkillView
from flowrl_core.report.timeline import RunTrace, greatest_overlap, handovers, most_at_once, speed_up
from flowrl_core.text import counted

__all__ = ["how_to_go_on", "outcome_lines", "summary_lines"]


def summary_lines(runs: Sequence[RunTrace], steps: Mapping[str, Sequence[tuple[str, float | None]]]) -> list[str]:
    """Return the lines below the table at the end.

    Args:
        runs: the campaign's runs.
        steps: skill -> its plan's steps, each with its own success among the episodes that reached it.
    """
    return [
        _speed_line(runs),
        _overlap_line(runs),
        _handover_line(runs),
        *_start_lines(runs),
        _condition_line(runs),
        *_step_lines(steps),
    ]


def outcome_lines(views: Sequence[SkillView], needs: Mapping[str, Collection[str]]) -> list[str]:
    """Return the lines that say what became of each skill: learned, failed and why, or waiting for which.

    Args:
        needs: the prerequisites of each skill that is not learned.
    """
    of = {state: [view for view in views if view.state == state] for state in {view.state for view in views}}
    learned, failed = (of.pop(state, []) for state in ("learned", "failed"))
    lines = [f"Learned: {len(learned)} of {counted(len(views), 'skill')}"]
    lines += [f"Failed: {view.name}: {view.remark}" for view in failed]
    for view in of.pop("blocked_by_failed", []):
        causes = [one.name for one in failed if one.name in needs.get(view.name, ())]
        lines.append(f"Blocked: {view.name} needs {' and '.join(causes) or 'a skill that failed'}")
    return [*lines, *(f"Not ended ({state}): {', '.join(one.name for one in rest)}" for state, rest in of.items())]


def how_to_go_on(campaign: str, views: Sequence[SkillView]) -> list[str]:
    """Return a line with the command that continues the training of the campaign's failed skills, if there are any."""
    failed = [view.name for view in views if view.figures.fact.is_lasting]
    if not failed:
        return []
    command = " ".join(["flowrl campaign --campaign", campaign, *(f"--retry {shlex.quote(name)}" for name in failed)])
    return [f"To go on with {' and '.join(failed)}: {command} (with more frames: --override {failed[0]}.frames=N)"]


def _speed_line(runs: Sequence[RunTrace]) -> str:
    figures = speed_up(runs)
    if figures is None:
        return f"Speed-up: {MISSING}"
    return (
        f"Speed-up: {figures.achieved:.2f}x with {most_at_once(runs)} at once "
        f"({seconds(figures.total)} of runs in {seconds(figures.wall)}); the graph's ceiling is {figures.ceiling:.2f}x "
        f"(its longest chain takes {seconds(figures.longest_chain)})"
    )


def _overlap_line(runs: Sequence[RunTrace]) -> str:
    found = greatest_overlap(runs)
    if found is None:
        return f"Training side by side: {MISSING}"
    both = " and ".join(
        f"{skill} ({counted(count, 'update')})" for skill, count in zip(found.skills, found.updates, strict=True)
    )
    return f"Training side by side: {both} in the same {seconds(found.seconds)}"


def _handover_line(runs: Sequence[RunTrace]) -> str:
    found = handovers(runs)
    text = "Dependency done -> dependant's first line: "
    if found.delays:
        text += f"median {seconds(median(found.delays))}, worst {seconds(max(found.delays))} (of {len(found.delays)})"
    else:
        text += MISSING
    if found.num_waited_for_slot:
        text += f"; {found.num_waited_for_slot} more waited for a free slot"
    return text


def _start_lines(runs: Sequence[RunTrace]) -> list[str]:
    def one(run: RunTrace) -> str:
        start, first = run.process_started, run.first_update
        took = seconds(None if start is None or first is None else first - start)
        compiled = MISSING if run.compilations is None else str(run.compilations)
        return f"{run.skill} {took} ({compiled} compiled)"

    return [f"Process start -> first update: {', '.join(map(one, runs)) or MISSING}"]


def _condition_line(runs: Sequence[RunTrace]) -> str:
    limits = sorted({run.training["episode_limit"] for run in runs if "episode_limit" in run.training})
    masks = {run.training["action_masks"] for run in runs if "action_masks" in run.training}
    used = MISSING if not masks else "used by some" if len(masks) == 2 else "used" if masks == {True} else "not used"
    return f"Episode limit: {', '.join(map(str, limits)) or MISSING} steps; action masks: {used}"


def _step_lines(steps: Mapping[str, Sequence[tuple[str, float | None]]]) -> list[str]:
    if not steps:
        return []
    lines = ["Each step's success, among the episodes that reached it:"]
    for skill, parts in steps.items():
        shown = ", ".join(f"{name} {MISSING if value is None else format(value, '.3f')}" for name, value in parts)
        lines.append(f"  {skill}: {shown or MISSING}")
    return lines
