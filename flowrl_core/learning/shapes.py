"""The shapes of a learner: everything that determines what is compiled."""

from __future__ import annotations

from dataclasses import dataclass

from flowrl_core.specs.skill import TrainingSpec

__all__ = ["Shapes", "shapes_of"]


@dataclass(frozen=True)
class Shapes:
    """Everything that determines what is compiled. All else is data."""

    env: str
    num_envs: int
    rollout_length: int
    num_experts: int
    width: int
    epochs: int
    minibatch_size: int
    world_pool: int
    snapshot_capacity: int


def shapes_of(env: str, training: TrainingSpec, num_local_experts: int) -> Shapes:
    """Return the shapes of a run.

    Capacity for experts grows by powers of two, so that runs of different plans share compiled functions.
    """
    room = training.max_experts
    while room < num_local_experts:
        room *= 2
    return Shapes(
        env=env,
        num_envs=training.num_envs,
        rollout_length=training.rollout_length,
        num_experts=room,
        width=training.width,
        epochs=training.epochs,
        minibatch_size=min(training.minibatch_size, training.num_envs * training.rollout_length),
        world_pool=max(training.world_pool, training.num_envs),
        snapshot_capacity=training.snapshot_capacity,
    )
