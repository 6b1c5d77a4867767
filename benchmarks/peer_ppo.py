"""The worker that measures Craftax_Baselines' PPO (github.com/MichaelTMatthews/Craftax_Baselines, ppo.py), unchanged.

It runs in an interpreter with that repository's requirements, and imports `make_train` from a checkout of it. Sizes are
given; everything else has the defaults of its command line, without its logging. Each call starts a new training: it
resets the environments and initialises the network once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from workers import serve

DEFAULTS = {
    "ENV_NAME": "Craftax-Classic-Symbolic-v1",
    "LR": 2e-4,
    "UPDATE_EPOCHS": 4,
    "NUM_MINIBATCHES": 8,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.8,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.01,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 1.0,
    "ACTIVATION": "tanh",
    "ANNEAL_LR": True,
    "USE_OPTIMISTIC_RESETS": True,
    "OPTIMISTIC_RESET_RATIO": 16,
    "TRAIN_ICM": False,
    "USE_E3B": False,
    "DEBUG": False,
    "USE_WANDB": False,
}


def make(args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """Return the compiled training as a function to measure."""
    import jax
    from ppo import make_train

    frames = args.updates * args.num_envs * args.num_steps
    sizes = {"NUM_ENVS": args.num_envs, "NUM_STEPS": args.num_steps, "LAYER_SIZE": args.width}
    train = jax.jit(make_train({**DEFAULTS, **sizes, "TOTAL_TIMESTEPS": frames}))
    compiled = train.lower(jax.random.PRNGKey(0)).compile()

    def run() -> dict[str, Any]:
        jax.block_until_ready(compiled(jax.random.PRNGKey(0)))
        return {"frames": frames}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", help="path of a checkout of Craftax_Baselines")
    for name in ("num-envs", "num-steps", "width", "updates"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    sys.path.insert(0, args.checkout)
    serve(lambda: make(args))


if __name__ == "__main__":
    main()
