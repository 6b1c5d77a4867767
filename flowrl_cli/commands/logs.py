"""`flowrl logs`: the training log of a skill's latest run."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from flowrl_core.storage.layout import Home
    from flowrl_core.storage.records.skill_runs import SkillRunRecord
    from flowrl_core.storage.registry import Registry

__all__ = ["logs"]

_POLL_SECONDS = 0.5


def logs(
    skill: str, /, *, campaign: str | None = None, follow: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Show the training log of a skill's latest run.

    Parameters
    ----------
    skill
        The skill.
    campaign
        The campaign; by default the one started last.
    follow
        Keep showing lines as they are written, until the run ends.
    """
    from flowrl_cli.request.inputs import check_known, existing_registry
    from flowrl_core.errors import InputError

    home, registry = existing_registry()
    if registry is None:
        raise InputError("skill", f"{skill!r} has no log", f"No campaign was ever started in {home.root}")
    with registry:
        found = registry.campaigns.last() if campaign is None else registry.campaigns.get(campaign)
        if found is None:
            raise InputError("skill", f"{skill!r} has no log", f"No campaign was ever started in {home.root}")
        records = registry.skills.of(found.name)
        check_known("skill", "skill", skill, records)
        runs = registry.skill_runs.of(records[skill].identity, line=found.line)
        if not runs:
            raise InputError("skill", f"{skill!r} has not been trained yet", "See `flowrl status`")
        _show(home, registry, runs[-1], follow=follow)


def _show(home: Home, registry: Registry, run: SkillRunRecord, *, follow: bool) -> None:
    """Print the run's log. Whether the run has ended is checked before each last read, so that no line is missed."""
    from flowrl_cli.views.view import latest_directory
    from flowrl_core.errors import InputError

    shown = 0
    while True:
        has_ended = not follow or registry.skill_runs.get(run.id).verdict is not None
        log = latest_directory(home, run.campaign, run.skill, run.ordinal).log
        if log.is_file():
            text = log.read_bytes()
            # A log that became shorter was started anew.
            shown = shown if len(text) >= shown else 0
            sys.stdout.write(text[shown:].decode(errors="replace"))
            sys.stdout.flush()
            shown = len(text)
        elif has_ended:
            raise InputError(
                "skill", f"there is no log {log}", "It has not been written yet, or was removed with its run"
            )
        if has_ended:
            return
        time.sleep(_POLL_SECONDS)
