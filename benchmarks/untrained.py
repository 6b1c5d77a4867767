"""The value of learning: each learned skill of a home, played with its bundle and with its own expert untrained.

Both are played in the same evaluation, from the same worlds, which no run has used. The prerequisites' experts stay as
measured, so the difference is due to the skill alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from flowrl_core.envs.automaton import NUM_STEP_FEATURES
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.randomness import jax_stream
from flowrl_core.stages.skill.comparison import play_with, setup_of
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import Bundle
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get
from flowrl_core.vocabulary.catalogue import vocabulary


def compare(home: Home, registry: Registry, bundle: Bundle, episodes: int, seed: int) -> dict[str, Any]:
    """Return the success of a bundle's skill as learned, and with its own expert untrained."""
    setup, key = setup_of(registry, bundle), jax_stream(seed, "untrained")
    learned = {index: get(home, version.content) for index, version in bundle.versions.items()}
    words = vocabulary(setup.env)
    sizes = (words.observation_size + NUM_STEP_FEATURES, setup.training.width, len(words.actions))
    untrained = learned | {setup.experts[bundle.skill]: initial_params(np.random.default_rng(seed), *sizes)}
    return {
        "skill": bundle.skill,
        "learned": play_with(home, setup, learned, episodes, key).success,
        "untrained": play_with(home, setup, untrained, episodes, key).success,
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
