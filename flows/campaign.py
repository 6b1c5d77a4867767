"""The flow that grows a library of skills towards its targets."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flowrl_core.errors import ConflictError, InputError
from flowrl_core.specs import CampaignName, EvaluationSpec, LimitsSpec, TrainingSpec, parse_campaign
from tasks.cancellation import cancel_skills
from tasks.frontier import conclude, opened

__all__ = ["campaign"]

_TRAINING, _EVALUATION, _LIMITS = TrainingSpec(), EvaluationSpec(), LimitsSpec()


@flow(name="campaign", flow_run_name="{campaign}", on_cancellation=[cancel_skills])
async def campaign(
    targets: list[str],
    campaign: CampaignName = "default",
    env: str = "craftax-classic",
    knowledge: str = "",
    training: TrainingSpec = _TRAINING,
    evaluation: EvaluationSpec = _EVALUATION,
    limits: LimitsSpec = _LIMITS,
    overrides: list[str] = [],  # noqa: B006  (a form shows a list; nothing changes it)
    retry: list[str] = [],  # noqa: B006
) -> State:
    """Learn the targets and all skills that they need, each in a flow run of its own.

    Started again under the same name it goes on: no finished skill is repeated.

    Args:
        targets: Skills to learn
        campaign: The campaign's name
        env: The environment
        knowledge: A shipped knowledge base or a TOML file; empty: the one of the environment
        training: How skills are trained
        evaluation: How skills are judged
        limits: How much of the machine is used, and what is done with results
        overrides: SKILL.FIELD=VALUE: one training or evaluation field of one skill
        retry: Skills that failed and shall be tried again
    """
    try:
        spec = parse_campaign(
            targets=targets,
            campaign=campaign,
            env=env,
            knowledge=knowledge,
            training=training,
            evaluation=evaluation,
            limits=limits,
            overrides=overrides,
            retry=retry,
        )
        async with opened(spec) as board:
            while not (stand := await board.turn()).is_over:
                await board.changed()
            return await conclude(board, stand)
    except (ConflictError, InputError) as exc:
        return Failed(name="Refused", message=str(exc))
