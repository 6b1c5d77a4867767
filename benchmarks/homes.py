"""What a home has learned, to play and to train on: the heads of its experts, and plans as arrays."""

from __future__ import annotations

from typing import Any

from flowrl_core.envs.automaton import PlanArrays, lower_plan
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get


def heads(home: Home) -> dict[str, Any]:
    """Return the parameters of each skill's head in the home's shared library."""
    with Registry.open(home) as registry:
        experts = [one for one in registry.library.experts() if not one.line]
        found = {one.name: registry.library.head(one.global_index) for one in experts}
    return {name: get(home, head.content) for name, head in found.items() if head is not None}


def arrays(knowledge: Knowledge, plan: Plan, training: TrainingSpec) -> PlanArrays:
    return lower_plan(
        plan,
        knowledge.skills,
        {name: number for number, name in enumerate(plan.skills)},
        knowledge.vocabulary,
        episode_limit=training.episode_limit,
        use_masks=training.action_masks,
    )
