"""Speed of Craftax-Classic under three ways to reset, as a ratio to no reset at all.

none: episodes never end. auto: a new world is generated for every environment in every step and used where an episode
ended (what an auto-resetting environment does). pool: FlowRL's own, drawn from pre-generated worlds, with the
generation of replacements timed. A random policy plays; the three are timed in turn, several rounds, in one process.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import Adapter, make_adapter
from flowrl_core.envs.worlds import draw, empty_pool, first_use, put_rows, replace_used

EPISODE_LIMIT = 100
"""Steps of an episode: about what the demo's plans take, so that resets come as often as in training."""
POOL, USES = 256, 8
AUTO_SHARE = 16


def advance(adapter: Adapter, state: Any, key: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """All environments one random step further."""
    act_key, env_key = jax.random.split(key)
    batch = jax.tree.leaves(state)[0].shape[0]
    action = jax.random.randint(act_key, (batch,), 0, adapter.num_actions)
    obs, state, is_dead = jax.vmap(adapter.step)(jax.random.split(env_key, batch), state, action)
    return state, obs, is_dead


def choose(is_over: jax.Array, fresh: Any, state: Any) -> Any:
    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(is_over.reshape((-1, *(1,) * (old.ndim - 1))), new, old)

    return jax.tree.map(pick, fresh, state)


def make_runs(adapter: Adapter, batch: int, length: int) -> dict[str, Any]:
    """A function for each way: key -> None, `length` steps of `batch` environments."""
    reset = jax.jit(jax.vmap(adapter.reset))
    renew = jax.jit(functools.partial(replace_used, adapter), donate_argnums=(0, 1))
    _, start = reset(jax.random.split(jax.random.PRNGKey(0), batch))
    time_left = jnp.arange(batch) * EPISODE_LIMIT // batch

    @jax.jit
    def none(state: Any, key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, obs, _ = advance(adapter, state, key)
            return state, obs.sum()

        return jax.lax.scan(step, state, jax.random.split(key, length))

    @jax.jit
    def auto(state: Any, left: jax.Array, key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, left = carry
            state, obs, is_dead = advance(adapter, state, key)
            is_over = is_dead | (left <= 0)
            fresh_obs, fresh = jax.vmap(adapter.reset)(jax.random.split(jax.random.fold_in(key, 1), batch))
            state, obs = choose(is_over, fresh, state), choose(is_over, fresh_obs, obs)
            return (state, jnp.where(is_over, EPISODE_LIMIT, left - 1)), obs.sum()

        return jax.lax.scan(step, (state, left), jax.random.split(key, lengths(length)["auto"]))

    @jax.jit
    def pooled(state: Any, left: jax.Array, pool: Any, use: Any, key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, left, use = carry
            state, obs, is_dead = advance(adapter, state, key)
            is_over = is_dead | (left <= 0)

            index, use = draw(use, is_over)
            state, obs = put_rows((state, obs), (pool.state, pool.obs), is_over, index)
            return (state, jnp.where(is_over, EPISODE_LIMIT, left - 1), use), obs.sum()

        return jax.lax.scan(step, (state, left, use), jax.random.split(key, length))

    kept: dict[str, Any] = {"pool": empty_pool(adapter, max(POOL, batch)), "use": first_use(max(POOL, batch))}
    kept["use"] = jax.tree.map(jnp.asarray, kept["use"])
    kept["pool"], kept["use"] = renew(kept["pool"], kept["use"], jax.random.PRNGKey(1), np.int32(USES))

    def run_pool(key: jax.Array) -> Any:
        kept["pool"], kept["use"] = renew(kept["pool"], kept["use"], jax.random.PRNGKey(1), np.int32(USES))
        (_, _, kept["use"]), out = pooled(start, time_left, kept["pool"], kept["use"], key)
        return out

    return {
        "none": lambda key: none(start, key),
        "auto": lambda key: auto(start, time_left, key),
        "pool": run_pool,
    }


def lengths(length: int) -> dict[str, int]:
    """Steps per timed call of each way: auto-reset is so slow that a few tell enough."""
    return {"none": length, "auto": max(1, length // AUTO_SHARE), "pool": length}


def seconds(run: Any, key: jax.Array) -> float:
    """Processor seconds of one call: the machine may be shared, wall time would measure its other users too."""
    began = time.process_time()
    jax.block_until_ready(run(key))
    return time.process_time() - began


def measure(batch: int, length: int, rounds: int, resets: list[str]) -> list[dict[str, Any]]:
    runs = {
        name: run for name, run in make_runs(make_adapter("craftax-classic"), batch, length).items() if name in resets
    }
    for run in runs.values():
        jax.block_until_ready(run(jax.random.PRNGKey(0)))
    steps = {name: batch * number for name, number in lengths(length).items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run, jax.random.PRNGKey(number)) / steps[name])
    per_step = {name: statistics.median(times) for name, times in taken.items()}
    return [
        {
            "reset": name,
            "num_envs": batch,
            "ratio": per_step["none"] / seconds_per_step,
            "cpu_us_per_step": seconds_per_step * 1e6,
        }
        for name, seconds_per_step in per_step.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--length", type=int, default=32, help="steps per timed call")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--resets", nargs="+", default=["none", "auto", "pool"])
    args = parser.parse_args()
    rows = [row for batch in args.num_envs for row in measure(batch, args.length, args.rounds, args.resets)]
    if args.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"{'envs':>6} {'reset':>6} {'speed / none':>13} {'CPU us per step':>16}")
    for row in rows:
        print(f"{row['num_envs']:>6} {row['reset']:>6} {row['ratio']:>13.2f} {row['cpu_us_per_step']:>16.0f}")


if __name__ == "__main__":
    main()
