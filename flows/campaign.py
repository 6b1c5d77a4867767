"""The flow that grows a library of skills towards its targets."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

import flowrl_core.anchored  # noqa: F401  (before tasks: Prefect's own engine may know other ones)
from flowrl_core.errors import ConflictError, InputError, NoRoomError
from flowrl_core.specs.base import CampaignName
from flowrl_core.specs.campaign import FrontierSpec, LimitsSpec, parse_campaign
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from tasks.campaign.campaign_loop import final_state, open_campaign
from tasks.campaign.cancellation import cancel_skills
from tasks.campaign.reconcile import NO_ROOM
from tasks.options import FLOW
from tasks.orchestration.runs.cancellation import RunCancelled
from tasks.orchestration.runs.termination import told_anywhere

__all__ = ["campaign"]

_TRAINING, _EVALUATION, _LIMITS, _FRONTIER = TrainingSpec(), EvaluationSpec(), LimitsSpec(), FrontierSpec()


# Parameters are validated inside: what is wrong with them ends the run as Refused, in words.
@flow(name="campaign", flow_run_name="{campaign}", on_cancellation=[cancel_skills], validate_parameters=False, **FLOW)
async def campaign(
    targets: list[str] = [],  # noqa: B006  (a form shows a list; nothing changes it)
    all: bool = False,
    campaign: CampaignName = "default",
    env: str = "craftax-classic",
    knowledge: str = "",
    fresh: bool = False,
    retry: list[str] = [],  # noqa: B006
    from_scratch: bool = False,
    overrides: list[str] = [],  # noqa: B006
    limits: LimitsSpec = _LIMITS,
    evaluation: EvaluationSpec = _EVALUATION,
    training: TrainingSpec = _TRAINING,
    frontier: FrontierSpec = _FRONTIER,
) -> State:
    """Learn the targets and all skills that they need, each in a flow run of its own.

    Started again under the same name, it resumes: no finished skill is repeated.

    Args:
        targets: Skills to learn, or fluents to obtain, e.g. inv.iron_pickaxe; empty: resume the campaign's targets
        all: Every skill of the knowledge base is a target, besides those named
        campaign: The campaign's name; an existing campaign is resumed
        env: The environment: craftax-classic, or corridor (a tiny one for trying things out)
        knowledge: A shipped knowledge base, or a TOML file in FLOWRL_HOME/knowledge; empty: the environment's own
        fresh: Give the campaign a library of its own: it learns everything anew and leaves the shared one alone
        retry: Failed skills whose training continues from where it stopped. Their overrides may change
        from_scratch: Begin the training of the skills to retry anew, instead of continuing it
        overrides: SKILL.FIELD=VALUE, each for one training or evaluation field of one skill
        limits: How much of the machine to use, and how to treat results
        evaluation: How skills are judged
        training: How skills are trained
        frontier: What proposes skills, and its cost limits
    """
    try:
        spec = parse_campaign(
            targets=targets,
            all=all,
            campaign=campaign,
            env=env,
            knowledge=knowledge,
            training=training,
            evaluation=evaluation,
            limits=limits,
            frontier=frontier,
            overrides=overrides,
            fresh=fresh,
            retry=retry,
            from_scratch=from_scratch,
        )
        async with told_anywhere(), open_campaign(spec) as loop:
            while not (snapshot := await loop.step()).is_over:
                await loop.changed()
            return await final_state(loop, snapshot)
    except RunCancelled as exc:
        return Cancelled(message=str(exc))
    except NoRoomError as exc:
        return Failed(name=NO_ROOM, message=str(exc))
    except (ConflictError, InputError) as exc:
        return Failed(name="Refused", message=str(exc))
