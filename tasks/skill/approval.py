"""A person's approval of a skill: the form shown for its run, and the resulting configuration."""

from __future__ import annotations

import copy
from typing import Any

from prefect.input import RunInput
from pydantic import Field, ValidationError, create_model

from flowrl_core.errors import InputError
from flowrl_core.quantities import Number, Whole
from flowrl_core.refusals import refusal
from flowrl_core.skills.model import Skill
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.skill.setups import check_possible
from tasks.orchestration.runs.approval import given_changes

__all__ = ["Changes", "approval_form", "approved"]


class Changes(RunInput):
    """What a person may change of a skill's run while approving it; the form that the UI shows on Resume."""

    frames: Whole = Field(ge=1, description="Maximum number of environment steps of the run (its budget)")
    learning_rate: Number = Field(gt=0.0, le=1.0, description="Adam's step size at the start")
    entropy_weight: Number = Field(ge=0.0, le=10.0, description="Weight of the entropy bonus at the start")
    episode_limit: Whole = Field(ge=1, le=10_000, description="Steps after which an episode counts as failed")
    threshold: Number = Field(
        gt=0.0, lt=1.0, description="The skill is learned only if the lower bound of its success reaches this"
    )


_AGAIN = "Start the campaign again with the skill in `retry`"
_TRAINING = ("frames", "learning_rate", "entropy_weight", "episode_limit")


def approval_form(skill: Skill, config: SkillConfig) -> type[Changes]:
    """Return the form of a run: the question, and `Changes` filled with the configuration."""
    fields: dict[str, Any] = {}
    for name, value in _unchanged(config).items():
        filled = copy.copy(Changes.model_fields[name])  # `with_initial_data` would drop bounds and descriptions
        filled.default = value
        fields[name] = (filled.annotation, filled)
    form = create_model("Changes", __base__=Changes, **fields)
    form._description = _question(skill)
    return form


def approved(config: SkillConfig) -> SkillConfig:
    """Return the configuration of the current flow run with the changes made on approval; what they omit stays.

    Raises:
        InputError: a change is not possible for a run.
    """
    changes = given_changes()
    if not changes:
        return config
    try:
        changed = Changes.model_validate(_unchanged(config) | changes).model_dump()
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


def _unchanged(config: SkillConfig) -> dict[str, Any]:
    groups = {name: config.training if name in _TRAINING else config.evaluation for name in Changes.model_fields}
    return {name: getattr(group, name) for name, group in groups.items()}


def _question(skill: Skill) -> str:
    """Return the question in Markdown; foreign text is set as code, so that it cannot format anything."""
    effects = {"needs": skill.requirements, "consumes": skill.consumption, "gains": skill.gain}
    facts = {
        word: ", ".join(f"{amount.at(skill.learn_count)} {fluent}" for fluent, amount in amounts.items())
        for word, amounts in effects.items()
    }
    facts |= {"done when": skill.program.done, "reward": skill.program.reward}
    lines = [f"- {word}: `{_one_line(text)}`" for word, text in facts.items() if text]
    asked = f"Approve the training of **{skill.name}**, optionally with changes. To reject it, cancel the run."
    return "\n".join([asked, "", f"`{_one_line(skill.description)}`" if skill.description else "", "", *lines])


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
