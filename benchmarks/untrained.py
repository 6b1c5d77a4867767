"""The value of learning: each learned skill of a home, played with its bundle and with its own expert untrained.

Both are played in the same evaluation, from the same worlds, which no run has used. The prerequisites' experts stay as
measured, so the difference is due to the skill alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowrl_core.compiled.cache import compiled_learner
from flowrl_core.envs.automaton import lower_plan
from flowrl_core.learning.evaluation import evaluate
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.skills.experts import build_remap, stack_experts
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import Bundle
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get
from flowrl_core.vocabulary.catalogue import vocabulary


def compare(home: Home, registry: Registry, bundle: Bundle, episodes: int, seed: int) -> dict[str, Any]:
    """Return the success of a bundle's skill as learned, and with its own expert untrained."""
    config = registry.skill_runs.get(bundle.run).config
    definition = registry.skills.definition(bundle.identity)
    assert config is not None
    remap = build_remap(list(bundle.versions))
    shapes = shapes_of(definition.env, config.training, len(bundle.versions))
    learner = compiled_learner(home.cache, shapes)
    experts = {
        expert.name: expert.global_index
        for expert in registry.library.experts()
        if expert.global_index in bundle.versions
    }
    skills = {
        expert.name: registry.skills.definition(expert.identity).skill
        for expert in registry.library.experts()
        if expert.global_index in bundle.versions
    }
    plan = lower_plan(
        bundle.plan,
        skills,
        {name: remap.global_to_local[index] for name, index in experts.items()},
        vocabulary(definition.env),
        episode_limit=config.training.episode_limit,
        use_masks=config.training.action_masks,
    )
    learned = {index: get(home, version.content) for index, version in bundle.versions.items()}
    rng = np.random.default_rng(seed)
    fresh = initial_params(rng, learner.observation_size, shapes.width, learner.num_actions)

    def success(params: dict[int, Any]) -> float:
        stacked = stack_experts([params[index] for index in sorted(params)], shapes.num_experts)
        return evaluate(learner, stacked, plan, episodes, jax.random.PRNGKey(seed)).success

    return {
        "skill": bundle.skill,
        "learned": success(learned),
        "untrained": success({**learned, experts[bundle.skill]: fresh}),
        "episodes": episodes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".flowrl"))
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--seed", type=int, default=123_456_789)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    args = parser.parse_args()
    home = Home(args.home)
    with Registry.open(home) as registry:
        found = [registry.library.bundle(expert.identity, line=expert.line) for expert in registry.library.experts()]
        rows = [compare(home, registry, one, args.episodes, args.seed) for one in found if one is not None]
    if args.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"{'skill':<24} {'learned':>8} {'untrained':>10}")
    for row in rows:
        print(f"{row['skill']:<24} {row['learned']:>8.3f} {row['untrained']:>10.3f}")


if __name__ == "__main__":
    main()
