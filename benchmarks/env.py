"""The cost of resets and of a new world in Craftax-Classic, and how a pool of worlds changes the starts.

Five ways to reset, timed in turns in one process while a random policy plays:

none        episodes never end.
auto        a new world is generated for every environment in every step and used where an episode ended (as in
            auto-resetting environments).
optimistic  one new world for every sixteen environments in every step; episodes that end together share worlds if
            there are too few (`OptimisticResetVecEnvWrapper` of Craftax_Baselines, reimplemented from its definition).
pool        FlowRL's own: pre-generated worlds, each replaced after eight episodes; includes their generation.

Episodes end after 100 steps, staggered, or by death: about the length of the demo's plans. Times are processor seconds:
on a shared machine, wall time would include the load of others.

    python benchmarks/env.py [--json] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from craftax.craftax_classic.constants import BlockType

from flowrl_core.envs.adapter import Adapter, make_adapter
from flowrl_core.envs.worlds import PoolUse, WorldPool, draw, empty_pool, put_rows, replace_used, staggered, used_up

EPISODE_LIMIT = 100
POOL, USES = 256, 8
RESET_RATIO = 16
SHARE = {"none": 1, "auto": 32, "optimistic": 8, "pool": 1}
"""One in how many steps is timed: for the slow ways a few steps are enough."""


def advance(adapter: Adapter, state: Any, left: jax.Array, key: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """Advance all environments by one random step; return states, observations, and which episodes are over."""
    act_key, env_key = jax.random.split(key)
    batch = left.shape[0]
    action = jax.random.randint(act_key, (batch,), 0, adapter.num_actions)
    obs, state, is_dead = jax.vmap(adapter.step)(jax.random.split(env_key, batch), state, action)
    return state, obs, is_dead | (left <= 0)


def choose(is_over: jax.Array, fresh: Any, current: Any) -> Any:
    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(is_over.reshape((-1, *(1,) * (old.ndim - 1))), new, old)

    return jax.tree.map(pick, fresh, current)


def full_pool(adapter: Adapter, renew: Callable[..., Any], size: int, key: jax.Array) -> tuple[WorldPool, PoolUse]:
    """Return a pool as at the start of a run: full, with staggered counters."""
    pool, use = renew(empty_pool(adapter, size), jax.device_put(used_up(size)), key, np.int32(1))
    return pool, dataclasses.replace(jax.device_put(staggered(size, USES)), born=use.born)


def make_runs(adapter: Adapter, batch: int, length: int) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """Return for each way a function key -> number of resets in its share of `length` steps of `batch` environments."""
    start = jax.jit(lambda keys: jax.lax.map(adapter.reset, keys))(jax.random.split(jax.random.PRNGKey(0), batch))[1]
    left = jnp.arange(batch) * EPISODE_LIMIT // batch
    size = max(POOL, batch)

    def play(name: str, put: Callable[..., Any]) -> Callable[..., Any]:
        def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
            state, left, extra = carry
            state, obs, is_over = advance(adapter, state, left, key)
            (state, obs), extra = put((state, obs), is_over, extra, jax.random.fold_in(key, 1))
            return (state, jnp.where(is_over, EPISODE_LIMIT, left - 1), extra), (is_over.sum(), obs.sum())

        steps = max(1, length // SHARE[name])
        return jax.jit(lambda extra, key: jax.lax.scan(step, (start, left, extra), jax.random.split(key, steps)))

    def put_none(current: Any, is_over: jax.Array, extra: Any, key: jax.Array) -> tuple[Any, Any]:
        return current, extra

    def put_new(num_worlds: int, current: Any, is_over: jax.Array, extra: Any, key: jax.Array) -> tuple[Any, Any]:
        obs, state = jax.vmap(adapter.reset)(jax.random.split(key, num_worlds))
        rank = jnp.cumsum(is_over) - is_over if num_worlds < batch else jnp.arange(batch)
        fresh = jax.tree.map(lambda leaf: leaf[rank % num_worlds], (state, obs))
        return choose(is_over, fresh, current), extra

    def put_pooled(current: Any, is_over: jax.Array, extra: Any, key: jax.Array) -> tuple[Any, Any]:
        pool, use = extra
        index, use = draw(use, is_over)
        return put_rows(current, (pool.state, pool.obs), is_over, index), (pool, use)

    renew = jax.jit(functools.partial(replace_used, adapter), donate_argnums=(0, 1))
    world_key, max_uses = jax.random.PRNGKey(1), np.int32(USES)
    kept = full_pool(adapter, renew, size, world_key)
    play_pooled = play("pool", put_pooled)

    def run_pool(key: jax.Array) -> jax.Array:
        nonlocal kept
        kept = renew(*kept, world_key, max_uses)
        (_, _, kept), (resets, _) = play_pooled(kept, key)
        return resets.sum()

    runs: dict[str, Callable[[jax.Array], jax.Array]] = {"pool": run_pool}
    others: dict[str, Callable[..., Any]] = {
        "none": put_none,
        "auto": functools.partial(put_new, batch),
        "optimistic": functools.partial(put_new, batch // RESET_RATIO),
    }
    for name, put in others.items():
        runs[name] = functools.partial(lambda run, key: run((), key)[1][0].sum(), play(name, put))
    return runs


def seconds(run: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return the processor seconds of one call, and its result."""
    began = time.process_time()
    out = jax.block_until_ready(run(*args))
    return time.process_time() - began, out


def measure_resets(adapter: Adapter, batch: int, length: int, rounds: int, ways: list[str]) -> list[dict[str, Any]]:
    """Return the speed of each way relative to none: the median over rounds of turns."""
    runs = {name: run for name, run in make_runs(adapter, batch, length).items() if name in ways}
    runs = {name: runs[name] for name in ways}
    frames = {name: batch * max(1, length // SHARE[name]) for name in runs}
    for run in runs.values():
        jax.block_until_ready(run(jax.random.PRNGKey(0)))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    resets: dict[str, int] = dict.fromkeys(runs, 0)
    for number in range(rounds):
        for name, run in runs.items():
            time_taken, count = seconds(run, jax.random.PRNGKey(number))
            taken[name].append(time_taken / frames[name])
            resets[name] += int(count)
    return [
        {
            "num_envs": batch,
            "reset": name,
            "ratio": statistics.median(a / b for a, b in zip(taken["none"], times, strict=True)),
            "cpu_us_per_frame": statistics.median(times) * 1e6,
            "resets_per_1000_frames": 0 if name == "none" else 1000 * resets[name] / (rounds * frames[name]),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        for name, times in taken.items()
    ]


def measure_worlds(adapter: Adapter, sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return processor milliseconds per world, for each number of worlds generated in one call."""
    calls = {}
    for size in sizes:
        reset = jax.vmap(adapter.reset) if size > 1 else lambda keys: adapter.reset(keys[0])
        calls[size] = jax.jit(reset), jax.random.split(jax.random.PRNGKey(0), size)
        jax.block_until_ready(calls[size][0](calls[size][1]))
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, (reset, keys) in calls.items():
            taken[size].append(seconds(lambda f, x: [f(x) for _ in range(max(1, 16 // len(x)))], reset, keys)[0])
    return [
        {"batch": size, "cpu_ms_per_world": statistics.median(times) / max(16, size) * 1e3}
        for size, times in taken.items()
    ]


def start_features(adapter: Adapter, obs: jax.Array, state: Any) -> jax.Array:
    """Return f32[3] for a start: distance to the nearest tree, to the nearest water, number of trees in view."""
    names = [fluent.name for fluent in adapter.vocabulary.fluents]
    fluents = adapter.read(obs, state)
    trees = obs[: 7 * 9 * 21].reshape(-1, 21)[:, BlockType.TREE.value].sum()
    return jnp.stack([fluents[names.index("dist.tree")], fluents[names.index("dist.water")], trees])


def measure_starts(adapter: Adapter, num_starts: int, window: int) -> dict[str, Any]:
    """Compare the starts from a pool with as many fresh worlds as it generated for them.

    `z` is the difference of the two means over its standard error, the pool's computed per world (its repeats are not
    independent). `inflation` is the variance of a mean over `num_starts` starts, relative to that over as many fresh
    worlds: Kish's n * sum(uses^2) / sum(uses)^2 over the worlds.
    """
    read = jax.jit(jax.vmap(functools.partial(start_features, adapter)))
    renew = jax.jit(functools.partial(replace_used, adapter))
    take = jax.jit(draw)
    pool, use = full_pool(adapter, renew, POOL, jax.random.PRNGKey(2))
    births = np.arange(POOL)
    born, features, worlds = POOL, [], []
    for _ in range(num_starts // window):
        births[np.asarray(use.uses) >= USES] = born + np.arange((np.asarray(use.uses) >= USES).sum())
        pool, use = renew(pool, use, jax.random.PRNGKey(2), np.int32(USES))
        born = int(use.born)
        index, use = take(use, jnp.ones(window, bool))
        features.append(np.asarray(read(pool.obs, pool.state))[np.asarray(index)])
        worlds.append(births[np.asarray(index)])
    starts, world = np.concatenate(features), np.concatenate(worlds)
    keys = jax.random.split(jax.random.PRNGKey(3), born)
    fresh = np.asarray(
        jax.jit(lambda keys: jax.lax.map(lambda k: start_features(adapter, *adapter.reset(k)), keys))(keys)
    )
    return compare_starts(starts, world, fresh)


def compare_starts(starts: np.ndarray, world: np.ndarray, fresh: np.ndarray) -> dict[str, Any]:
    uses = np.bincount(world)
    inflation = len(world) * (uses**2).sum() / uses.sum() ** 2
    rows = []
    for name, pooled, new in zip(("tree distance", "water distance", "trees in view"), starts.T, fresh.T, strict=True):
        error = math.sqrt(pooled.var() * inflation / len(pooled) + new.var() / len(new))
        rows.append(
            {
                "feature": name,
                "pool_mean": float(pooled.mean()),
                "fresh_mean": float(new.mean()),
                "pool_std": float(pooled.std()),
                "fresh_std": float(new.std()),
                "z": float((pooled.mean() - new.mean()) / error),
            }
        )
    return {
        "starts": len(world),
        "worlds": len(np.unique(world)),
        "most_uses": int(uses.max()),
        "inflation": float(inflation),
        "repeats": [
            {"starts": size, "effective": float(np.mean([effective(world[i : i + size]) for i in offsets]))}
            for size in (64, 256, 1024, 4096)
            if (offsets := range(0, len(world) - size + 1, size))
        ],
        "features": rows,
    }


def effective(world: np.ndarray) -> float:
    """Return Kish's effective number of these starts if a world always led to the same result (the worst case)."""
    uses = np.bincount(world)
    return float(uses.sum() ** 2 / (uses**2).sum())


def show(result: dict[str, Any]) -> None:
    print(
        f"{'envs':>6} {'reset':>11} {'speed / none':>13} {'CPU us/frame':>13} {'resets/1,000':>13} {'peak RSS MiB':>13}"
    )
    for row in result["rows"]:
        print(
            f"{row['num_envs']:>6} {row['reset']:>11} {row['ratio']:>13.2f} {row['cpu_us_per_frame']:>13.1f} "
            f"{row['resets_per_1000_frames']:>13.1f} {row['peak_rss_mib']:>13}"
        )
    print(f"\n{'worlds at a time':>17} {'CPU ms per world':>17}")
    for row in result["worlds"]:
        print(f"{row['batch']:>17} {row['cpu_ms_per_world']:>17.2f}")
    if (starts := result["starts"]) is None:
        return
    print(
        f"\n{starts['starts']} starts from {starts['worlds']} worlds of a pool of {POOL}: at most "
        f"{starts['most_uses']} from one, variance of a mean at most x{starts['inflation']:.1f}"
    )
    print(f"{'feature':>15} {'pool mean':>10} {'fresh mean':>11} {'pool std':>9} {'fresh std':>10} {'z':>6}")
    for row in starts["features"]:
        print(
            f"{row['feature']:>15} {row['pool_mean']:>10.3f} {row['fresh_mean']:>11.3f} {row['pool_std']:>9.3f} "
            f"{row['fresh_std']:>10.3f} {row['z']:>6.2f}"
        )
    print(f"{'starts in a row':>15} {'effective at least':>19}")
    for row in starts["repeats"]:
        print(f"{row['starts']:>15} {row['effective']:>19.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--quick", action="store_true", help="64 environments, few rounds, no table of starts")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--length", type=int, default=32, help="steps per timed call")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--resets", nargs="+", default=list(SHARE), choices=list(SHARE))
    parser.add_argument("--starts", type=int, default=8192, help="starts drawn from a pool; 0 leaves that table out")
    args = parser.parse_args()
    if args.quick:
        args.num_envs, args.rounds, args.starts = [64], 3, 0
    adapter = make_adapter("craftax-classic")
    ways = ["none", *(way for way in args.resets if way != "none")]
    result = {
        "rows": [
            row for size in args.num_envs for row in measure_resets(adapter, size, args.length, args.rounds, ways)
        ],
        "worlds": measure_worlds(adapter, [1, 4, 8, 16], args.rounds),
        "starts": measure_starts(adapter, args.starts, 64) if args.starts else None,
    }
    if args.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
