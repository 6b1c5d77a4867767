"""Later starts of a campaign: what they inherit from the previous start, and what must not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowrl_core.errors import InputError
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import Override, joined, overrides_of, resolve

__all__ = ["changed_overrides", "check_continues", "check_same_base", "effective_spec"]

_FREE_LIMITS = ("max_parallel", "max_retries", "max_skills", "approval", "stall_minutes")
"""Limits that may change: they affect how a campaign uses the machine, not what it learns."""
_OF_ONE_START = {"targets", "retry", "overrides"}
_REMEDY = "Use the same value, or another campaign name"


def effective_spec(spec: CampaignSpec, earlier: Mapping[str, CampaignSpec]) -> CampaignSpec:
    """Return the effective parameters of a start, given earlier ones; a campaign's first start is used unchanged.

    A later start with targets replaces all parameters, except that overrides are added to the earlier ones (replacing
    those of the same skill and field) and that the library stays. Without targets, it repeats the earlier start with
    the given changes; values equal to a default count as not given. `check_continues` rejects forbidden changes.

    Args:
        earlier: by campaign name, the parameters of its last start in the registry.

    Raises:
        InputError: no targets, and no campaign of this name.
    """
    if spec.campaign in earlier:
        return _continued(spec, earlier[spec.campaign])
    if spec.targets:
        return spec
    problem = f"none is named, and there is no campaign {spec.campaign!r} to resume"
    known = ", ".join(earlier) or "none"
    raise InputError("targets", problem, f"Name the skills to learn, or an existing campaign: {known}")


def check_continues(before: CampaignSpec, after: CampaignSpec) -> None:
    """Check that the start `after` may follow `before` in the same campaign.

    Only targets, the frontier, machine limits, and the overrides of skills to retry may differ.

    Raises:
        InputError: another field differs; names it with its old and new value.
    """
    _check_same(before, _fixed(before), _fixed(after))
    if after.fresh and not before.fresh:
        problem = f"campaign {before.campaign!r} was started in the shared library, not with one of its own"
        raise InputError("fresh", problem, "Leave it out, or use another campaign name")
    for one, value in changed_overrides(before, after):
        if one.skill not in after.retry:
            earlier = f"with {value!r}" if value is not None else "without it"
            problem = f"campaign {before.campaign!r} was started {earlier}, not with {one.value!r}"
            remedy = f"{_REMEDY}; if {one.skill} has failed, name it in `retry`"
            raise InputError(one.written, problem, remedy)


def check_same_base(before: CampaignSpec, after: CampaignSpec) -> None:
    """Check that what is proposed with `after` fits the campaign `before`: same environment, same knowledge base.

    Raises:
        InputError: one differs; names it with its old and new value.
    """
    _check_same(before, _base(before), _base(after))


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
    kept = {"overrides": joined(before.overrides, spec.overrides), "fresh": spec.fresh or before.fresh}
    if spec.targets:
        return spec.model_copy(update=kept)
    given = spec.model_dump(exclude_defaults=True, exclude=_OF_ONE_START)
    changed = {
        name: getattr(before, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in given.items()
    }
    return before.model_copy(update={**changed, **kept, "retry": spec.retry})


def _meant(spec: CampaignSpec, override: Override) -> Any:
    return getattr(getattr(resolve(override.skill, spec), override.group), override.field)


def _check_same(before: CampaignSpec, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for field in old:
        if old[field] != new[field]:
            problem = f"campaign {before.campaign!r} was started with {old[field]!r}, not {new[field]!r}"
            raise InputError(field, problem, _REMEDY)


def _base(spec: CampaignSpec) -> dict[str, Any]:
    return {"env": spec.env, "knowledge": spec.knowledge}


def _fixed(spec: CampaignSpec) -> dict[str, Any]:
    """Return the fields, except overrides, that must not change within a campaign, by full name."""
    flat = _base(spec)
    for group in ("training", "evaluation", "limits"):
        values = getattr(spec, group).model_dump()
        flat |= {f"{group}.{name}": value for name, value in values.items() if name not in _FREE_LIMITS}
    return dict(sorted(flat.items()))
