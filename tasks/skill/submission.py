"""A skill's flow run: its submission, and finding the runs of a campaign's skills."""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from flowrl_core.skills.model import Skill
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.records.runs import Attempt
from tasks.orchestration.runs.submission import Submission, find_runs
from tasks.orchestration.runs.tags import campaign_tags
from tasks.skill.approval import approval_form

__all__ = ["SKILL", "SKILL_FLOW", "live_skill_runs", "skill_submission"]

SKILL_FLOW = "train-skill"
"""The flow of skills' runs; flows/skill.py defines it."""

SKILL = f"{SKILL_FLOW}/gpu"
"""The deployment of skills' runs; prefect.yaml names its pool and queue."""


def skill_submission(registry: str, attempt: Attempt, config: SkillConfig, *, held: Skill | None = None) -> Submission:
    """Return the submission of an attempt.

    Args:
        registry: uuid of the registry.
        held: the skill that a person must approve before the run starts; None to start at once.
    """
    facts = {"campaign": attempt.campaign, "skill": attempt.name, "attempt": attempt.id, "run": attempt.run}
    return Submission(
        deployment=SKILL,
        flow_run_name=attempt.name,
        parameters={**facts, **config.model_dump(mode="json")},
        tags=[*campaign_tags(registry, attempt.campaign), f"skill:{attempt.name}"],
        key=attempt.key,
        held=None if held is None else approval_form(held, config),
    )


async def live_skill_runs(client: PrefectClient, registry: str, campaign: str) -> list[FlowRun]:
    """Return the runs of a campaign's skills that are not in a final state.

    Args:
        registry: uuid of the registry.
    """
    return await find_runs(client, campaign_tags(registry, campaign), flow=SKILL_FLOW, only_live=True)
