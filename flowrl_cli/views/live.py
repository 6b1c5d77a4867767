"""A campaign in progress: a table that is redrawn on a terminal, lines for each change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Group
from rich.live import Live
from rich.text import Text

from flowrl_cli.process.signals import audience
from flowrl_cli.views.proposals import proposal_line
from flowrl_cli.views.tables import console, make_table, number, percent
from flowrl_cli.views.view import SkillView
from flowrl_core.storage.records.proposals import ProposalRecord
from flowrl_core.storage.records.skill_runs import Look

__all__ = ["Narrator", "live_table", "show"]

_LATEST = 6
"""Number of proposals shown below the table."""


class Narrator:
    """Reports the changes from one view of a campaign to the next; of the first, only skills learned or under way."""

    def __init__(self) -> None:
        self._before: dict[str, SkillView] = {}
        self._tenths: dict[tuple[str, int | None], int] = {}
        self._told: int | None = None

    def tell(self, views: Sequence[SkillView], proposals: Sequence[ProposalRecord] = ()) -> Iterator[str]:
        """Yield one line for each event.

        Args:
            proposals: all proposals made to the campaign, oldest first.
        """
        told, self._told = self._told, len(proposals)
        yield from map(proposal_line, proposals[len(proposals) if told is None else told :])
        for view in views:
            before = self._before.get(view.name)
            changes = list(self._changes(before or view, view))
            self._before[view.name] = view
            for line in changes if before else _first_lines(view):
                yield f"{view.name}: {line}"

    def _changes(self, before: SkillView, view: SkillView) -> Iterator[str]:
        is_new_state, is_new_run = before.state != view.state, before.figures.run != view.figures.run
        if view.broken_off and view.figures.fact.retries > before.figures.fact.retries:
            yield view.broken_off
        if is_new_state and view.state == "submitted":
            yield "submitted"
        # Training success is reported once for each tenth that a run reaches for the first time.
        run, progress = (view.name, view.figures.run), view.progress
        if progress and progress.success and int(10 * progress.success) > self._tenths.get(run, 0):
            self._tenths[run] = int(10 * progress.success)
            yield f"training success {percent(progress.success)} after {number(progress.run_frames)} frames"
        for look in view.looks[0 if is_new_run else len(before.looks) :]:
            yield look_line(look)
        if is_new_state and view.state in _ENDS:
            yield _ENDS[view.state](view)


def live_table(views: Sequence[SkillView]) -> Group:
    """Return the skills' current state as a table; below it, why runs broke off and skills failed."""
    columns = ("skill", "state", "training", "frames", "frames/s", "last look")
    notes = [Text(f"{view.name}: {view.remark}", overflow="fold") for view in views if _is_news(view)]
    return Group(make_table(columns, [_row(view) for view in views], whole=["state"]), *notes)


def look_line(look: Look) -> str:
    """Return a line with the look's result."""
    return f"look {look.number}: {look.successes}/{look.episodes} succeeded, lower bound {look.lower_bound:.3f}"


@contextmanager
def show(ui: str) -> Iterator[Callable[[Sequence[SkillView], Sequence[ProposalRecord]], None]]:
    """Yield a function to call with each new view and all proposals.

    It redraws the table on a terminal; elsewhere it prints what changed.

    Args:
        ui: the address that stays visible below the table.
    """
    if sys.stdout.isatty():
        # Drawn by the caller: a separate thread would not report that the terminal has closed.
        live = Live(console=console(), auto_refresh=False, transient=True)
        try:
            with audience():
                live.start()
            foot = Text(f"UI: {ui}   (Ctrl-C to stop or detach)")

            def draw(views: Sequence[SkillView], proposals: Sequence[ProposalRecord]) -> None:
                lines = [Text(proposal_line(one), no_wrap=True, overflow="ellipsis") for one in proposals[-_LATEST:]]
                with audience():
                    live.update(Group(live_table(views), *lines, foot), refresh=True)

            yield draw
        finally:
            with suppress(OSError):
                live.stop()
        return
    narrator = Narrator()

    def tell(views: Sequence[SkillView], proposals: Sequence[ProposalRecord]) -> None:
        for line in narrator.tell(views, proposals):
            with audience():
                print(line, flush=True)

    yield tell


def _first_lines(view: SkillView) -> list[str]:
    if view.state == "learned":
        return [f"already learned, success {percent(view.figures.success)}"]
    return ["under way", *([view.broken_off] if view.broken_off else [])] if view.state == "submitted" else []


def _row(view: SkillView) -> tuple[object, ...]:
    progress, look = view.progress, view.looks[-1] if view.looks else None
    return (
        view.name,
        view.state,
        percent(progress.success if progress else None),
        progress.run_frames if progress else None,
        round(progress.frames_per_second) if progress and progress.frames_per_second else None,
        f"{look.successes}/{look.episodes}, bound {look.lower_bound:.3f}" if look else None,
    )


def _is_news(view: SkillView) -> bool:
    """Whether the skill has a remark to report; a skill learned earlier was reported at the start."""
    return bool(view.remark) and view.state != "learned"


def _learned(view: SkillView) -> str:
    figures = view.figures
    return f"learned, success {percent(figures.success)} (lower bound {figures.success_lower_bound or 0.0:.3f})"


_ENDS: dict[str, Callable[[SkillView], str]] = {
    "learned": _learned,
    "failed": lambda view: f"failed: {view.figures.fact.reason or view.figures.fact.cause}",
    "stopped": lambda view: f"stopped: {view.remark}",
    "blocked_by_failed": lambda view: "blocked by a failed skill",
}
