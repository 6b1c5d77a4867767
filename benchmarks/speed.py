"""Frames per second of whole training (rollouts, resets and updates), each variant in a process of its own, in turns.

The plan has 24 steps that random play sometimes completes, with the experts taking turns, so that all of them are
used. A variant is `routed:K` (FlowRL with K experts), `dense:K` (every expert computes every sample) or `peer`.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import Worker, serve

BENCHMARKS = Path(__file__).parent
NUM_STEPS = 32
REFERENCE = "routed:4"


@dataclass(frozen=True)
class Size:
    """Sizes of training; a minibatch is an eighth of a rollout, the peer's default."""

    num_envs: int
    width: int

    @property
    def minibatch_size(self) -> int:
        return self.num_envs * NUM_STEPS // 8


SIZES = {"small": Size(num_envs=64, width=64), "large": Size(num_envs=256, width=128)}


@dataclass(frozen=True)
class Peer:
    """A checkout of Craftax_Baselines and an interpreter with its requirements."""

    checkout: Path
    python: str


@dataclass(frozen=True)
class Row:
    """The results of one variant: medians over the rounds, the ratio by pairs.

    Attributes:
        ratio: the reference's frames per second over this variant's; `cpu_ratio`: the same per CPU second.
        smallest_share: the smallest share of the frames that any expert acted in.
    """

    size: str
    variant: str
    frames_per_second: float
    cpu_us_per_frame: float
    ratio: float
    cpu_ratio: float
    peak_mib: float
    smallest_share: float
    cores: int


def compare(size: str, variants: Sequence[str], updates: int, rounds: int, cache: Path, peer: Peer | None) -> list[Row]:
    """Return the rows of the variants, measured in turns, forwards and backwards."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for variant in variants:
            workers[variant] = stack.enter_context(Worker(_command(variant, size, updates, cache, peer)))
            facts = workers[variant].wait()  # one after another: compiling in parallel would exhaust memory and time
            print(f"{size} {variant}: ready after {facts['preparing_cpu_seconds']:.0f} CPU s", file=sys.stderr)
            cores = facts["cores"]
        answers: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for number in range(rounds):
            for variant in variants if number % 2 == 0 else reversed(variants):
                answers[variant].append(workers[variant].measure())
    return [_row(size, variant, answers, cores) for variant in variants]


def _row(size: str, variant: str, answers: dict[str, list[dict[str, Any]]], cores: int) -> Row:
    def pace(name: str, time: str) -> list[float]:
        return [answer["frames"] / answer[time] for answer in answers[name]]

    def ratio(time: str) -> float:
        pairs = zip(pace(REFERENCE, time), pace(variant, time), strict=True)
        return statistics.median(ours / other for ours, other in pairs)

    return Row(
        size=size,
        variant=variant,
        frames_per_second=statistics.median(pace(variant, "seconds")),
        cpu_us_per_frame=1e6 / statistics.median(pace(variant, "cpu_seconds")),
        ratio=ratio("seconds"),
        cpu_ratio=ratio("cpu_seconds"),
        peak_mib=max(answer["peak_mib"] for answer in answers[variant]),
        smallest_share=min(answer.get("smallest_share", 1.0) for answer in answers[variant]),
        cores=cores,
    )


def _command(variant: str, size: str, updates: int, cache: Path, peer: Peer | None) -> list[str]:
    if variant != "peer":
        return [sys.executable, str(BENCHMARKS / "speed.py"), variant, size, str(updates), str(cache)]
    assert peer is not None
    sizes = {"num-envs": SIZES[size].num_envs, "num-steps": NUM_STEPS, "width": SIZES[size].width, "updates": updates}
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    return [peer.python, str(BENCHMARKS / "peer_ppo.py"), str(peer.checkout), *options]


def make(variant: str, size: Size, updates: int, cache: Path) -> Callable[[], dict[str, Any]]:
    """Return the training of our harness as a function to measure: each call continues where the last one ended."""
    import jax
    import numpy as np
    from variants import dense_learner

    from flowrl_core.compiled.cache import compiled_learner
    from flowrl_core.learning.learner import hyperparameters, training_mode
    from flowrl_core.learning.shapes import shapes_of
    from flowrl_core.networks.initialisation import initial_params
    from flowrl_core.randomness import jax_stream
    from flowrl_core.skills.experts import stack_experts
    from flowrl_core.specs.skill import TrainingSpec

    form, num_experts = variant.split(":")[0], int(variant.split(":")[1])
    sizes = {"num_envs": size.num_envs, "rollout_length": NUM_STEPS, "width": size.width}
    training = TrainingSpec(**sizes, minibatch_size=size.minibatch_size, max_experts=num_experts)
    shapes = shapes_of("craftax-classic", training, num_experts)
    learner = dense_learner(shapes) if form == "dense" else compiled_learner(cache, shapes)
    plan, hyper = mixed_plan(num_experts, training.episode_limit), hyperparameters(training)
    rng = np.random.default_rng(0)
    experts = [
        initial_params(rng, learner.observation_size, size.width, learner.num_actions) for _ in range(num_experts)
    ]
    params = stack_experts(experts, shapes.num_experts)
    state = learner.init(params, jax_stream(0, "worlds"), jax_stream(0, "train"), training.world_uses)

    def run() -> dict[str, Any]:
        nonlocal state
        before = np.array(state.routed_frames)
        for _ in range(updates):
            state, _, parts = learner.step(
                state, plan, hyper, training_mode(training.snapshot_fraction), training.world_uses
            )
            jax.block_until_ready(parts)
        routed = np.array(state.routed_frames) - before
        return {"frames": int(routed.sum()), "smallest_share": float(routed.min() / routed.sum())}

    return run


def mixed_plan(num_experts: int, episode_limit: int) -> Any:
    """Return 24 steps, each done when the nearest tree in view gets nearer, with the experts taking turns."""
    from flowrl_core.envs.automaton import lower_plan
    from flowrl_core.programs.model import Program
    from flowrl_core.skills.model import MAX_STEPS, Linear, Plan, Skill, Step
    from flowrl_core.vocabulary.catalogue import vocabulary

    program = Program("closer.tree > 0", "gained.wood + 0.1 * d.health")
    names = [f"skill_{number % num_experts}" for number in range(MAX_STEPS)]
    skills = {name: Skill(name, "", program, gain={"inv.wood": Linear(1, 0)}, target="tree") for name in names}
    plan = Plan(names[-1], tuple(Step(name, 1) for name in names))
    experts = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return lower_plan(plan, skills, experts, vocabulary("craftax-classic"), episode_limit=episode_limit)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"{rows[0].cores} core(s) for each process; ratios: frames/s of {REFERENCE} over the row's, median of pairs"
    yield (
        f"{'size':>6} {'variant':>10} {'frames/s':>9} {'CPU us/frame':>13} {'ratio':>6} {'by CPU':>7} {'peak MiB':>9} "
        f"{'least used':>11}"
    )
    for row in rows:
        yield (
            f"{row.size:>6} {row.variant:>10} {row.frames_per_second:>9.0f} {row.cpu_us_per_frame:>13.1f} "
            f"{row.ratio:>6.2f} {row.cpu_ratio:>7.2f} {row.peak_mib:>9.0f} {row.smallest_share:>11.3f}"
        )


if __name__ == "__main__":
    serve(lambda: make(sys.argv[1], SIZES[sys.argv[2]], int(sys.argv[3]), Path(sys.argv[4])))
