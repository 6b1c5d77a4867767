"""A person's approval of a skill: its run is made `Suspended`, and waits in the Prefect UI.

Resume approves it, with changes or without; Cancel rejects it. A run that waits holds no slot and blocks nobody.
"""

from __future__ import annotations

import copy
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.input import RunInput
from prefect.input.actions import read_flow_run_input
from prefect.input.run_input import keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Suspended
from pydantic import Field, ValidationError, create_model

from flowrl_core.errors import InputError
from flowrl_core.quantities import Number, Whole
from flowrl_core.refusals import refusal
from flowrl_core.skills.model import Skill
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.setups import check_possible
from tasks.orchestration.runs.tags import APPROVAL

__all__ = ["CAMPAIGN_CANCELLED", "Changes", "approved", "held_state", "is_rejected", "offer_changes"]

CAMPAIGN_CANCELLED = "its campaign was cancelled"
"""The message of runs that were cancelled with their campaign."""


class Changes(RunInput):
    """What a person may change of a skill's run while approving it; the form that the UI shows on Resume."""

    frames: Whole = Field(ge=1, description="Most environment steps of the run (its budget)")
    learning_rate: Number = Field(gt=0.0, le=1.0, description="Adam's step size")
    entropy_weight: Number = Field(ge=0.0, le=10.0, description="Weight of the entropy bonus")
    episode_limit: Whole = Field(ge=1, le=10_000, description="Steps after which an episode counts as failed")
    threshold: Number = Field(gt=0.0, lt=1.0, description="Learned only if the lower bound of success reaches this")


_AGAIN = "Start the campaign again with the skill in `retry`"
_TRAINING = ("frames", "learning_rate", "entropy_weight", "episode_limit")


def held_state() -> State:
    """The state of a run that waits for approval, for as long as it takes."""
    state: State = Suspended(pause_key=APPROVAL, message="waits for approval: Resume approves, Cancel rejects")
    state.state_details.run_input_keyset = {str(kind): key for kind, key in keyset_from_paused_state(state).items()}
    return state


async def offer_changes(run: FlowRun, skill: Skill, config: SkillConfig) -> None:
    """Give the form of a held run its text and its fields, filled with the configuration; again changes nothing."""
    form = _form(config)
    form._description = _question(skill)
    try:
        await form.asave(keyset_from_paused_state(held_state()), run.id)
    except PrefectHTTPStatusError as exc:
        if exc.response.status_code != httpx.codes.CONFLICT:
            raise


def _question(skill: Skill) -> str:
    """What is to be approved, in Markdown; what others have written stands as code, so that it formats nothing."""
    effects = {"needs": skill.requirements, "uses up": skill.consumption, "brings": skill.gain}
    facts = {
        word: ", ".join(f"{amount.at(skill.learn_count)} {fluent}" for fluent, amount in amounts.items())
        for word, amounts in effects.items()
    }
    facts |= {"done when": skill.program.done, "reward": skill.program.reward}
    lines = [f"- {word}: `{_one_line(text)}`" for word, text in facts.items() if text]
    asked = f"Approve the training of **{skill.name}**, with changes if need be. To reject it, cancel the run."
    return "\n".join([asked, "", f"`{_one_line(skill.description)}`" if skill.description else "", "", *lines])


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _form(config: SkillConfig) -> type[Changes]:
    """`Changes` with the configuration as its defaults (`with_initial_data` would drop bounds and descriptions)."""
    fields: dict[str, Any] = {}
    for name, field in Changes.model_fields.items():
        filled = copy.copy(field)
        filled.default = getattr(config.training if name in _TRAINING else config.evaluation, name)
        fields[name] = (field.annotation, filled)
    return create_model("Changes", __base__=Changes, **fields)


def approved(config: SkillConfig) -> SkillConfig:
    """The configuration of the flow run that asks, with what a person has changed while approving it.

    Raises:
        InputError: a change that no run can take.
    """
    if APPROVAL not in flow_run.tags:
        return config
    changes = read_flow_run_input(keyset_from_paused_state(held_state())["response"])
    if not changes:
        return config
    try:
        changed = Changes.model_validate(changes).model_dump()
        training = config.training.model_copy(update={name: changed[name] for name in _TRAINING})
        evaluation = config.evaluation.model_copy(update={"threshold": changed["threshold"]})
        approved = config.model_copy(update={"training": training, "evaluation": evaluation})
        if approved != config:
            check_possible(approved, lambda path: path.partition(".")[2])
    except ValidationError as exc:
        found = refusal(exc, model=Changes)
        raise InputError(found.field, found.problem, _AGAIN) from exc
    except InputError as exc:
        raise InputError(exc.field, exc.problem, f"{exc.remedy}. {_AGAIN}") from exc
    return approved


def is_rejected(run: FlowRun) -> bool:
    """Whether a person cancelled a run that waited for approval; with its campaign is no verdict on it."""
    return (
        APPROVAL in run.tags
        and run.run_count == 0
        and run.state is not None
        and run.state.is_cancelled()
        and run.state.message != CAMPAIGN_CANCELLED
    )
