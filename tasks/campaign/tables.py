"""The tables of a campaign in the Prefect UI: its skills, and what was proposed to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prefect.artifacts import acreate_table_artifact

from flowrl_core.storage.records.proposals import ProposalRecord
from flowrl_core.storage.records.skills import SkillFigures
from tasks.artifacts import slug

__all__ = ["report_campaign", "report_proposals"]

_MOST_PROPOSALS = 200
"""Maximum number of rows: a page displays 300 KB well."""


async def report_campaign(
    campaign: str, states: Mapping[str, str], figures: Iterable[SkillFigures], remarks: Mapping[str, str]
) -> None:
    """Show the campaign's skills as a table on its run's page; `remarks`: on each skill."""
    rows = [
        {
            "skill": one.name,
            "state": states[one.name],
            "success": one.success,
            "lower bound": one.success_lower_bound,
            "threshold": one.threshold,
            "frames": one.run_frames,
            "looks": one.looks,
            "why": remarks[one.name],
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
