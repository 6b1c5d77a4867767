"""What a home has learned, to play and to train on: the heads of its experts, and plans as arrays."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from flowrl_core.envs.automaton import PlanArrays, lower_plan
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import ExpertRecord
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get
from flowrl_core.types import View


def experts(home: Home) -> dict[str, ExpertRecord]:
    """Return the experts of the home's shared library that have a head, by skill."""
    with Registry.open(home) as registry:
        return {one.name: one for one in registry.library.experts() if not one.line and one.head is not None}


def views(home: Home) -> dict[str, View]:
    """Return what each skill's expert sees."""
    return {name: one.view for name, one in experts(home).items()}


def heads(home: Home) -> dict[str, Any]:
    """Return the parameters of each skill's head in the home's shared library."""
    found = {name: one.head for name, one in experts(home).items()}
    return {name: get(home, head.content) for name, head in found.items() if head is not None}


def fields(text: str, *, also: Collection[str] = ()) -> dict[str, Any]:
    """Return the values of a text `FIELD=VALUE,FIELD=VALUE`: fields of `training`, in JSON, or of `also`.

    Raises:
        SystemExit: no such field.
    """
    pairs = [pair.split("=", 1) for pair in text.split(",") if pair]
    known = {*TrainingSpec.model_fields, *also}
    if unknown := [name for name, *_ in pairs if name not in known]:
        raise SystemExit(f"no field {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return {name: value if name == "like" else json.loads(value) for name, value in pairs}


def arrays(knowledge: Knowledge, plan: Plan, training: TrainingSpec, views: Mapping[str, View]) -> PlanArrays:
    """Return the plan as arrays; `views`: what the expert of each skill sees."""
    return lower_plan(
        plan,
        knowledge.skills,
        {name: number for number, name in enumerate(plan.skills)},
        knowledge.vocabulary,
        episode_limit=training.episode_limit,
        use_masks=training.action_masks,
        views=views,
    )
