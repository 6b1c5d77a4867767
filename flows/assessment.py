"""The flow that measures a skill again."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed
from pydantic import Field

import flowrl_core.anchored  # noqa: F401  (before tasks: Prefect's own engine may know other ones)
from flowrl_core.errors import InputError
from flowrl_core.quantities import Whole
from flowrl_core.specs.base import CampaignName
from tasks.options import FLOW
from tasks.skill.assessment import assess_skill, device, final_state

__all__ = ["evaluate_skill"]


@flow(name="evaluate-skill", flow_run_name="{skill} ({of})", **FLOW)
def evaluate_skill(
    skill: Annotated[str, Field(min_length=1)],
    campaign: CampaignName = "default",
    of: Literal["bundle", "heads"] = "bundle",
    episodes: Annotated[Whole, Field(ge=1, le=65_536)] = 512,
) -> State:
    """Evaluate a learned skill again, in worlds never seen before. Nothing is changed.

    Args:
        skill: The skill to evaluate
        campaign: The campaign that learned it
        of: bundle: the versions that proved it. heads: the versions that the next runs start from
        episodes: Number of episodes, a multiple of the skill's training.num_envs
    """
    try:
        with device():
            return final_state(skill, assess_skill(campaign, skill, of, episodes))
    except InputError as exc:
        return Failed(name="Refused", message=str(exc))
