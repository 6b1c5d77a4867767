"""Later starts of a campaign: what they take from the previous start, and what must not change.

A parameter of a start counts as given if it was set (pydantic's `model_fields_set`), be it to its default: on the
command line, each option and each field of the file. Prefect passes a form's untouched defaults like values that
somebody entered, so the flow reads its parameters `without_defaults`: there, what equals its default was not given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.specs.base import Spec
from flowrl_core.specs.campaign import CampaignSpec, LimitsSpec
from flowrl_core.specs.overrides import Override, joined, overrides_of, resolve
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec

__all__ = ["changed_overrides", "check_overrides", "effective_spec", "with_all_targets", "without_defaults"]

_FREE_LIMITS = ("max_parallel", "max_retries", "max_skills", "approval", "stall_minutes")
"""Limits that may change: they affect how a campaign uses the machine, not what it learns."""
_FIXED: dict[str, Collection[str]] = {
    "training": TrainingSpec.model_fields,
    "evaluation": EvaluationSpec.model_fields,
    "limits": LimitsSpec.model_fields.keys() - set(_FREE_LIMITS),
    "frontier": (),
}
"""The fields of each group that must not change within a campaign, as `env` and `knowledge` must not."""
_REMEDY = "Leave it out, or use another campaign name"

S = TypeVar("S", bound=Spec)


def without_defaults(spec: CampaignSpec) -> CampaignSpec:
    """Return the same parameters, of which those equal to their default count as not given."""
    return CampaignSpec.model_validate(spec.model_dump(exclude_defaults=True))


def effective_spec(spec: CampaignSpec, earlier: Mapping[str, CampaignSpec]) -> CampaignSpec:
    """Return the effective parameters of a start, given earlier ones; a campaign's first start is used unchanged.

    A later start takes what must not change from the earlier one. With targets, all else is as in `spec`; without, it
    repeats the earlier start with what is given. Overrides are added to the earlier ones, replacing those of the same
    skill and field, and the library stays.

    Args:
        earlier: by campaign name, the parameters of its last start in the registry.

    Raises:
        InputError: no targets, and no campaign of this name; or a given field that must not change differs: the error
            names it with its old and new value.
    """
    if before := earlier.get(spec.campaign):
        after = _continued(spec, before)
        _check_fixed(before, after)
        return after
    if spec.names_targets:
        return spec
    problem = f"none is named, and there is no campaign {spec.campaign!r} to resume"
    known = ", ".join(earlier) or "none"
    raise InputError("targets", problem, f"Name the skills to learn, or an existing campaign: {known}")


def with_all_targets(spec: CampaignSpec, skills: Iterable[str], named: Naming = AS_PATHS) -> CampaignSpec:
    """Return the spec with its targets by name, each once: those it names and, if it asks for all, the skills.

    So a later start without targets means the same ones, even if the knowledge base has grown.

    Args:
        skills: of the knowledge base.
        named: how the user writes a field, given its path.

    Raises:
        InputError: all are asked for, of a campaign that begins without skills.
    """
    if spec.all and spec.frontier.kind == "model":
        problem = "there is no skill yet where a language model alone proposes them"
        remedy = f"Name the targets, or use the knowledge base too: {named.setting('frontier.kind', 'hybrid')}"
        raise InputError(named("all"), problem, remedy)
    targets = dict.fromkeys([*spec.targets, *(skills if spec.all else ())])
    return spec.model_copy(update={"targets": list(targets), "all": False})


def check_overrides(before: CampaignSpec, after: CampaignSpec, named: Naming = AS_PATHS) -> None:
    """Check that no overrides differ from the earlier start's but those of skills to retry.

    Args:
        named: how the user writes a field, given its path.

    Raises:
        InputError: another one does, is of an unknown field or has a value out of range.
    """
    for one, value in changed_overrides(before, after):
        if one.skill not in after.retry:
            earlier = f"with {value!r}" if value is not None else "without it"
            problem = f"campaign {before.campaign!r} was started {earlier}, not with {one.value!r}"
            retry = named.setting("retry", [*after.retry, one.skill])
            raise InputError(named(one.written), problem, f"{_REMEDY}; if {one.skill} has failed, add {retry}")


def changed_overrides(before: CampaignSpec, after: CampaignSpec) -> list[tuple[Override, str | None]]:
    """Return the new or changed overrides of `after`, each with its value in `before` (None: no such override).

    Values are compared after parsing: 1e5 equals 100000.

    Raises:
        InputError: an override of an unknown field, or a value out of range.
    """
    earlier = {one.key: one for one in overrides_of(before)}
    changed = []
    for one in overrides_of(after):
        was = earlier.get(one.key)
        if was is None or _meant(before, one) != _meant(after, one):
            changed.append((one, was.value if was is not None else None))
    return changed


def _continued(spec: CampaignSpec, before: CampaignSpec) -> CampaignSpec:
    groups = {}
    for name, fixed in _FIXED.items():
        given, earlier = getattr(spec, name), getattr(before, name)
        groups[name] = _completed(given, earlier, fixed if spec.names_targets else type(earlier).model_fields)
    kept = {
        "targets": spec.targets if spec.names_targets else before.targets,
        "overrides": joined(before.overrides, spec.overrides),
        "fresh": spec.fresh or before.fresh,
    }
    return _completed(spec, before, ("env", "knowledge")).model_copy(update={**groups, **kept})


def _completed(given: S, before: S, fields: Collection[str]) -> S:
    """Return `given`, with those of the fields that it does not set from `before`."""
    return given.model_copy(
        update={name: getattr(before, name) for name in fields if name not in given.model_fields_set}
    )


def _check_fixed(before: CampaignSpec, after: CampaignSpec) -> None:
    old, new = _fixed(before), _fixed(after)
    for field in old:
        if old[field] != new[field]:
            problem = f"campaign {before.campaign!r} was started with {old[field]!r}, not {new[field]!r}"
            raise InputError(field, problem, _REMEDY)
    if after.fresh and not before.fresh:
        problem = f"campaign {before.campaign!r} was started in the shared library, not with one of its own"
        raise InputError("fresh", problem, _REMEDY)


def _meant(spec: CampaignSpec, override: Override) -> Any:
    return getattr(getattr(resolve(override.skill, spec), override.group), override.field)


def _fixed(spec: CampaignSpec) -> dict[str, Any]:
    """Return the fields, except overrides, that must not change within a campaign, by full name."""
    flat: dict[str, Any] = {"knowledge": spec.knowledge, "env": spec.env}
    for group, fields in _FIXED.items():
        flat |= {f"{group}.{name}": getattr(getattr(spec, group), name) for name in fields}
    return dict(sorted(flat.items()))
