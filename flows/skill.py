"""The flow that learns one skill."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

import flowrl_core.anchored  # noqa: F401  (before tasks: Prefect's own engine may know other ones)
from flowrl_core.errors import InputError, NoRoomError, TrainingError
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, TrainingSpec
from flowrl_core.stages.timing import mark
from flowrl_core.types import MergePolicy
from tasks.campaign.reconcile import NO_ROOM
from tasks.options import FLOW
from tasks.orchestration.runs.cancellation import RunCancelled, note_cancellation
from tasks.skill.approval import approved
from tasks.skill.evaluation import evaluate_run, reflect_run, verdict_of
from tasks.skill.preparation import prepare_run, skill_workplace
from tasks.skill.processing import final_state, give_up, is_decided, process_run
from tasks.skill.training import train_run

__all__ = ["train_skill"]

_DEFAULT = SkillConfig()


@flow(name="train-skill", on_cancellation=[note_cancellation], **FLOW)
def train_skill(
    campaign: str,
    skill: str,
    attempt: int,
    run: int,
    training: TrainingSpec = _DEFAULT.training,
    evaluation: EvaluationSpec = _DEFAULT.evaluation,
    merge: MergePolicy = "most_frames",
    stall_minutes: float = _DEFAULT.stall_minutes,
    reflect: bool = False,
) -> State:
    """Learn one skill: prepare, then alternate training and evaluation until there is a verdict, then commit.

    Killed anywhere and run again, it resumes from the run's last checkpoint.

    Args:
        campaign: The campaign that the run belongs to
        skill: The skill to learn
        attempt: The registry's id of this submission
        run: The registry's id of the run
        training: How to train it
        evaluation: How to evaluate it
        merge: Which version of a shared expert becomes the head, from which the next runs start
        stall_minutes: A run without progress for this long ends itself and is retried
        reflect: At the run's end, record how its episodes went, for a model that proposes skills
    """
    mark("first_line")
    config = SkillConfig(
        training=training, evaluation=evaluation, merge=merge, stall_minutes=stall_minutes, reflect=reflect
    )
    try:
        with skill_workplace(run, attempt, stall_minutes) as epoch:
            try:
                if not is_decided(run):
                    prepare_run(run, approved(config), epoch)
                    while verdict_of(run) is None:
                        train_run(run, skill, epoch)
                        evaluate_run(run, epoch)
                    if reflect:
                        reflect_run(run, epoch)
            except (InputError, TrainingError) as exc:
                return give_up(run, exc, epoch)
            return final_state(process_run(run, epoch))
    except RunCancelled as exc:
        return Cancelled(message=str(exc))
    except NoRoomError as exc:
        return Failed(name=NO_ROOM, message=str(exc))
