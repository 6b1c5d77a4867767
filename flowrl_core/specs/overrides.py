"""Overrides (fields that a campaign sets for a single skill), and the resolved configuration of a skill's run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.nearest import remedy_for
from flowrl_core.refusals import refusal, shown
from flowrl_core.specs.base import Spec
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, TrainingSpec

__all__ = ["Override", "joined", "origins", "overrides_of", "resolve"]

_OVERRIDE = re.compile(r"^(?P<skill>[^.=\s]+)\.(?P<field>[^=\s]+)=(?P<value>.+)$", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """A frozen record of one override: a field of one skill, as the user set it.

    Attributes:
        written: the field's name in errors, `overrides.SKILL.FIELD`.
        group, field: group and field of the configuration.
    """

    written: str
    skill: str
    group: str
    field: str
    value: str

    @property
    def key(self) -> tuple[str, str]:
        """The skill and the field."""
        return self.skill, self.field


def overrides_of(spec: CampaignSpec, named: Naming = AS_PATHS) -> list[Override]:
    """Return the campaign's overrides, in order.

    Raises:
        InputError: an override that is not SKILL.FIELD=VALUE, or names an unknown field.
    """
    return [_parse_override(text, named) for text in spec.overrides]


def joined(before: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the overrides `before` that `given` does not replace, then `given`; invalid ones are kept."""
    anew = {_target(text) for text in given}
    return [*(text for text in before if _target(text) not in anew), *given]


def _matched(text: str) -> re.Match[str] | None:
    return _OVERRIDE.match(text.lstrip("\ufeff").strip())


def _target(text: str) -> tuple[str, ...]:
    found = _matched(text)
    return (found["skill"], found["field"].replace("-", "_")) if found else (text,)


def _parse_override(text: str, named: Naming) -> Override:
    found = _matched(text)
    if not found:
        problem = f"{shown(text)} is not SKILL.FIELD=VALUE"
        example = named.example("overrides.collect_wood.frames", 100_000)
        raise InputError(named("overrides"), problem, f"Write, for example, {example}")
    written, field = f"overrides.{found['skill']}.{found['field']}", found["field"].replace("-", "_")
    group = next((name for name, model in _GROUPS.items() if field in model.model_fields), None)
    if group is None:
        known = [name for model in _GROUPS.values() for name in model.model_fields]
        remedy = remedy_for(field.rpartition(".")[2], known, cutoff=0.6)
        raise InputError(named(written), f"{found['field']!r} is not a training or evaluation field", remedy)
    return Override(written, found["skill"], group, field, found["value"].strip())


def resolve(
    skill: str,
    spec: CampaignSpec,
    named: Naming = AS_PATHS,
    /,
    *,
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> SkillConfig:
    """Return the configuration of one skill's run: the campaign's fields, then the knowledge base's, then overrides.

    Args:
        named: how the user writes a field, given its path (`training.frames`, `overrides.SKILL.frames`).
        training, evaluation: the fields that the knowledge base sets for the skill.

    Raises:
        InputError: an override of an unknown field, or a value out of range.
    """
    own = {"training": training or {}, "evaluation": evaluation or {}}
    groups = {group: {**getattr(spec, group).model_dump(), **values} for group, values in own.items()}
    for override in overrides_of(spec, named):
        if override.skill == skill:
            groups[override.group][override.field] = override.value
    where = origins(skill, spec, **own)
    try:
        return SkillConfig.model_validate(
            {
                **groups,
                "merge": spec.limits.merge,
                "stall_minutes": spec.limits.stall_minutes,
                "reflect": spec.frontier.kind != "knowledge",
            }
        )
    except ValidationError as exc:
        raise refusal(exc, named.at(where), model=SkillConfig) from exc


def origins(
    skill: str, spec: CampaignSpec, *, training: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> Callable[[str], str]:
    """Return a map from a skill's field, such as `training.frames`, to the path of the setting that determines it.

    Args:
        training, evaluation: the fields that the knowledge base sets for the skill.
    """
    own = {"training": training, "evaluation": evaluation}
    found = {f"{group}.{field}": f"skills.{skill}.{group}.{field}" for group, values in own.items() for field in values}
    found |= {f"{one.group}.{one.field}": one.written for one in overrides_of(spec) if one.skill == skill}
    return lambda path: found.get(path, path)


_GROUPS: dict[str, type[Spec]] = {"training": TrainingSpec, "evaluation": EvaluationSpec}
