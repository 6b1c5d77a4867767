"""The cost of a mixture of experts, relative to the time of one plain network.

The first table is forward and backward of large batches, the second the forward pass alone of a rollout's small ones,
in which few of the experts have samples. `routed` is `routed_apply`, `dense` runs all K experts on all samples and
selects. The samples arrive unsorted; the times include grouping them and restoring the order of the outputs. Each ratio
is the median over pairs of calls (the mixture and the plain network in turns, in one process), so that other load on
the machine affects both.

    python benchmarks/moe.py [--json] [--quick] [--dense-all] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.networks.initialisation import initial_params
from flowrl_core.networks.moe import dense_apply, routed_apply, take_expert
from flowrl_core.networks.policy_value import ActorCritic

FORMS: dict[str, Callable[..., Any]] = {"routed": routed_apply, "dense": dense_apply}


@dataclass(frozen=True)
class Sizes:
    width: int = 512
    inputs: int = 1354
    batch: int = 8192
    num_actions: int = 17
    num_experts: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    dense_up_to: int = 8


QUICK = Sizes(width=64, inputs=256, batch=512, num_experts=(2, 8))


@dataclass(frozen=True)
class RolloutSizes:
    width: int = 64
    inputs: int = 1354
    num_actions: int = 17
    num_experts: int = 8
    batch: tuple[int, ...] = (64, 256)
    num_present: tuple[int, ...] = (1, 2, 3, 4, 5)


QUICK_ROLLOUT = RolloutSizes(inputs=256, batch=(64,), num_present=(2, 5))


@dataclass(frozen=True)
class Row:
    num_experts: int
    form: str
    routing: str
    ratio: float


@dataclass(frozen=True)
class RolloutRow:
    batch: int
    num_present: int
    microseconds: float
    ratio: float


def measure(sizes: Sizes, rounds: int) -> Iterator[Row]:
    """Yield one row per number of experts, form and routing, as it is measured."""
    rng = np.random.default_rng(0)
    network = ActorCritic(width=sizes.width, num_actions=sizes.num_actions)
    x = jnp.asarray(rng.standard_normal((sizes.batch, sizes.inputs)), jnp.float32)
    for num_experts in sizes.num_experts:
        params = stacked_params(rng, sizes, num_experts)
        plain = gradient(network.apply).lower(take_expert(params, 0), x).compile()
        run_plain = call(plain, take_expert(params, 0), x)
        for form, mixture in FORMS.items():
            if form == "dense" and num_experts > sizes.dense_up_to:
                continue
            expert = jnp.zeros(sizes.batch, jnp.int32)
            program = gradient(lambda *args, mixture=mixture: mixture(network.apply, *args))
            compiled = program.lower(params, x, expert).compile()
            for routing in ("uniform", "zipf"):
                expert = jnp.asarray(draw_experts(rng, routing, num_experts, sizes.batch))
                ratio = median_ratio(call(compiled, params, x, expert), run_plain, rounds)
                yield Row(num_experts, form, routing, round(ratio, 3))


def measure_rollout(sizes: RolloutSizes, rounds: int) -> Iterator[RolloutRow]:
    """Yield one row per batch and number of experts that act in it; the others have no sample."""
    rng = np.random.default_rng(0)
    network = ActorCritic(width=sizes.width, num_actions=sizes.num_actions)
    params = stacked_params(rng, sizes, sizes.num_experts)
    for batch in sizes.batch:
        x = jnp.asarray(rng.standard_normal((batch, sizes.inputs)), jnp.float32)
        plain = jax.jit(network.apply).lower(take_expert(params, 0), x).compile()
        run_plain = call(plain, take_expert(params, 0), x, repeats=20)
        program = jax.jit(lambda *args: routed_apply(network.apply, *args))
        routed = program.lower(params, x, jnp.zeros(batch, jnp.int32)).compile()
        for num_present in sizes.num_present:
            expert = jnp.asarray(rng.integers(0, num_present, batch), jnp.int32)
            run_routed = call(routed, params, x, expert, repeats=20)
            ratio = median_ratio(run_routed, run_plain, rounds)
            microseconds = 1e6 * statistics.median(run_routed() for _ in range(rounds))
            yield RolloutRow(batch, num_present, round(microseconds), round(ratio, 3))


def stacked_params(rng: np.random.Generator, sizes: Sizes | RolloutSizes, num_experts: int) -> Any:
    one = initial_params(rng, sizes.inputs, sizes.width, sizes.num_actions)
    return jax.tree.map(lambda leaf: jnp.stack([jnp.roll(leaf, k, 0) for k in range(num_experts)]), one)


def draw_experts(rng: np.random.Generator, routing: str, num_experts: int, batch: int) -> np.ndarray:
    """Return the expert of each sample, i32[batch], unsorted; under `zipf` with shares proportional to 1 / (k + 1)."""
    share = np.ones(num_experts) if routing == "uniform" else 1 / np.arange(1, num_experts + 1)
    return rng.choice(num_experts, batch, p=share / share.sum()).astype(np.int32)


def gradient(function: Callable[..., Any]) -> Any:
    """Return a function for loss and gradient in the first argument; the loss needs the outputs, so both passes run."""

    def loss(*args: Any) -> jax.Array:
        logits, value = function(*args)
        return (logits**2).mean() + (value**2).mean()

    return jax.jit(jax.value_and_grad(loss))


def call(compiled: Callable[..., Any], *args: Any, repeats: int = 1) -> Callable[[], float]:
    """Return a function that runs the program `repeats` times and returns the seconds per run."""

    def run() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(compiled(*args))
        return (time.perf_counter() - start) / repeats

    return run


def median_ratio(measured: Callable[[], float], reference: Callable[[], float], rounds: int) -> float:
    measured(), reference()
    ratios = []
    for number in range(rounds):
        if number % 2:
            below, above = reference(), measured()
        else:
            above, below = measured(), reference()
        ratios.append(above / below)
    return statistics.median(ratios)


def peak_memory() -> int:
    """Return the bytes of this process's peak resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--quick", action="store_true", help="a small network and batch: seconds, not minutes")
    parser.add_argument("--dense-all", action="store_true", help="measure the dense form above 8 experts too")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of calls per row")
    arguments = parser.parse_args()
    sizes, rollout_sizes = (QUICK, QUICK_ROLLOUT) if arguments.quick else (Sizes(), RolloutSizes())
    if arguments.dense_all:
        sizes = replace(sizes, dense_up_to=max(sizes.num_experts))
    rounds = max(1, arguments.rounds)
    rows, rollout_rows = measure(sizes, rounds), measure_rollout(rollout_sizes, rounds)
    if arguments.json:
        tables = {"rows": [asdict(row) for row in rows], "rollout_rows": [asdict(row) for row in rollout_rows]}
        print(json.dumps({**tables, "peak_memory": peak_memory()}))
        return
    print(f"width {sizes.width}, {sizes.inputs} inputs, batch {sizes.batch:,}, on {jax.devices()[0].device_kind}")
    print(f"{'experts':>7}  {'form':6}  {'routing':7}  {'times one network':>17}")
    for row in rows:
        print(f"{row.num_experts:7}  {row.form:6}  {row.routing:7}  {row.ratio:17.2f}", flush=True)
    print(f"\nforward, width {rollout_sizes.width}, {rollout_sizes.num_experts} experts, some of which are present")
    print(f"{'batch':>7}  {'present':>7}  {'microseconds':>12}  {'times one network':>17}")
    for one in rollout_rows:
        print(f"{one.batch:7}  {one.num_present:7}  {one.microseconds:12.0f}  {one.ratio:17.2f}", flush=True)
    print(f"\npeak resident memory {peak_memory() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
