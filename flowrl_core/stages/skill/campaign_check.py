"""The check of a campaign's parameters as a whole before anything starts, used by the command and the flow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.nearest import remedy_for
from flowrl_core.refusals import shown
from flowrl_core.skills.frontier import needed, prerequisites
from flowrl_core.skills.goals import check_provided, check_target
from flowrl_core.skills.planner import plan_of
from flowrl_core.specs.campaign import SHARED
from flowrl_core.specs.overrides import Override, origins, overrides_of, resolve
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.proposals.context import ProposalContext
from flowrl_core.stages.skill.setups import check_plan_fits, check_possible

__all__ = ["CampaignCheck", "check_campaign"]

_UNNEEDED = "no target needs that skill, so this has no effect now"


@dataclass(frozen=True)
class CampaignCheck:
    """What a campaign's parameters mean.

    Attributes:
        needs: the skills that the targets currently need, prerequisites and guards first -> the other skills of their
            plans.
        configs: the training configuration of each of them and of each overridden skill.
        notes: a sentence on each override and each skill to retry that currently has no effect.
    """

    needs: Mapping[str, tuple[str, ...]]
    configs: Mapping[str, SkillConfig]
    notes: tuple[str, ...]


def check_campaign(context: ProposalContext, named: Naming = AS_PATHS) -> CampaignCheck:
    """What the campaign's parameters mean in its current state.

    Args:
        named: maps a field's path (`training.frames`, `overrides.SKILL.frames`) to how the user wrote it.

    Raises:
        InputError: a library of its own under the name of the shared one; an unknown target, skill to retry or
            overridden skill; `from_scratch` without a skill to retry; a skill to retry that waits for a failed one; an
            override that is invalid or given twice; a value out of range; a setup with which a skill could not be
            learned.
        PlanError, KnowledgeError: a target has no plan.
    """
    spec, known = context.spec, context.knowledge
    _check_targets(context, named)
    if spec.line == SHARED:
        problem = f"{SHARED!r} is the name of the library that campaigns share"
        raise InputError(named("campaign"), problem, "Give a campaign with a library of its own another name")
    if spec.from_scratch and not spec.retry:
        remedy = f"Name them ({named.example('retry', ['SKILL'])}), or leave it out"
        raise InputError(named("from_scratch"), "there are no skills to retry", remedy)
    for name in spec.retry:
        _check_skill(named("retry"), name, known.skills)
    if spec.frontier.kind == "knowledge":
        check_provided(known, spec.targets, named)
    overrides = overrides_of(spec, named)
    for override in overrides:
        _check_skill(named(override.written), override.skill, known.skills)
    _refuse_twice(overrides, named)
    needs = needed(known, [name for name in context.frontier.by.values() if name is not None])
    configs = {}
    for name in dict.fromkeys([*needs, *(override.skill for override in overrides)]):
        own = context.settings(name)
        config = configs[name] = resolve(name, spec, named, **own)
        written = named.at(origins(name, spec, **own))
        check_possible(config, written)
        if name in needs:
            check_plan_fits(config, plan_of(known, name), known.skills, known.vocabulary, written)
    idle = [f"{named(one.written)}: {_UNNEEDED}" for one in overrides if one.skill not in needs]
    return CampaignCheck(needs, configs, (*idle, *_notes_on_retries(context, named)))


def _check_targets(context: ProposalContext, named: Naming) -> None:
    spec, known = context.spec, context.knowledge
    try:
        for target in spec.targets:
            check_target(target, known.skills, known.vocabulary)
    except InputError as exc:
        if not context.figures:  # a new campaign
            raise
        hint = f"Campaign {spec.campaign!r} is in {spec.env}: for another environment, use another {named('campaign')}"
        remedy = exc.remedy if exc.remedy.endswith("?") else f"{exc.remedy}."
        raise InputError(exc.field, exc.problem, f"{remedy} {hint}") from exc


def _notes_on_retries(context: ProposalContext, named: Naming) -> Iterator[str]:
    """Yield a sentence for each skill to retry that has not failed, or that no target needs.

    Raises:
        InputError: one waits for a skill that failed and is not to be retried.
    """
    retry, facts, where = context.spec.retry, context.facts, named("retry")
    failed = {name for name, fact in facts.items() if fact.is_lasting}
    for name in retry:
        fact = facts.get(name)
        if fact is not None and fact.learned:
            other = f"another campaign name, with a library of its own ({named.setting('fresh', True)})"
            yield f"{where}: {name} is learned, so it is not trained again; for another result, use {other}"
        elif name not in context.frontier.needed:
            yield f"{where}: {name}: {_UNNEEDED}"
        elif missing := [one for one in prerequisites(context.knowledge, [name]) if one in failed.difference(retry)]:
            problem = f"{name} waits for {' and '.join(missing)}, which failed"
            raise InputError(where, problem, f"Write {named.example('retry', [*missing, *retry])}")
        elif fact is None or not (fact.failed or fact.executing):
            yield f"{where}: {name} has not failed, so this has no effect"


def _check_skill(field: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise InputError(field, f"there is no skill {shown(name)}", remedy_for(name, known))


def _refuse_twice(overrides: Sequence[Override], named: Naming) -> None:
    values: dict[tuple[str, str], str] = {}
    for one in overrides:
        key = one.skill, one.field
        if key in values:
            problem = f"is given twice, as {values[key]} and as {one.value}"
            raise InputError(named(one.written), problem, "Remove one of them")
        values[key] = one.value
