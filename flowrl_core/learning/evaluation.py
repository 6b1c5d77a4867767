"""Evaluation from fresh worlds: play a number of episodes fixed beforehand and count the outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowrl_core.envs.automaton import PlanArrays
from flowrl_core.envs.worlds import WorldPool
from flowrl_core.learning.learner import Learner
from flowrl_core.learning.rollout import Trajectory
from flowrl_core.randomness import jax_substream
from flowrl_core.specs.skill import check_episodes
from flowrl_core.types import FailedEnds

__all__ = ["Counts", "Evaluation", "evaluate", "played"]


@dataclass(frozen=True)
class Evaluation:
    """The counts of one evaluation.

    Attributes:
        episodes, successes: episodes played, and those that finished the whole plan.
        deaths: episodes that ended with the player's death.
        step_attempts, step_successes: attempts at each plan step, and those that finished it.
        step_ends: by plan step, how the episodes that failed in it ended.
        median_length: steps of the median successful episode; NaN without one.
        frames: environment steps spent.
    """

    episodes: int
    successes: int
    deaths: int
    step_attempts: tuple[int, ...]
    step_successes: tuple[int, ...]
    step_ends: tuple[FailedEnds, ...]
    median_length: float
    frames: int

    @property
    def success(self) -> float:
        """The share of the episodes that succeeded."""
        return self.successes / self.episodes


def evaluate(learner: Learner, params: Any, plan: PlanArrays, episodes: int, key: np.ndarray) -> Evaluation:
    """Play `episodes` episodes of the plan from fresh worlds with sampled actions.

    Each environment plays a number of episodes fixed beforehand, so that quick successes do not crowd out slow
    failures; an episode that reaches the time limit is a failure. Worlds come from a new pool, in rounds of at most the
    pool's size.

    Raises:
        InputError: the episodes do not divide equally among the environments.
    """
    check_episodes("episodes", episodes, learner.shapes.num_envs)
    counts = Counts(int(plan.num_steps))
    quota = episodes // learner.shapes.num_envs
    per_round = learner.shapes.world_pool // learner.shapes.num_envs
    rounds = [per_round] * (quota // per_round) + ([quota % per_round] if quota % per_round else [])
    for number, share in enumerate(rounds):
        round_key = jax_substream(key, number)
        pool = learner.fill(jax_substream(round_key, "worlds"))
        for trajectory in played(learner, params, plan, pool, share, jax_substream(round_key, "play")):
            counts.add(trajectory, share)
    return counts.evaluation()


def played(
    learner: Learner, params: Any, plan: PlanArrays, pool: WorldPool, quota: int, key: np.ndarray
) -> Iterator[Trajectory]:
    """Yield trajectories until each environment has played `quota` episodes; most will have played more.

    The same arguments give the same trajectories. A plan that differs only in its reward table changes only the
    rewards.
    """
    playing = learner.begin(pool)
    ended = np.zeros(learner.shapes.num_envs, np.int64)
    number = 0
    while ended.min() < quota:
        playing, trajectory = learner.play(params, playing, pool, plan, jax_substream(key, number))
        ended += np.asarray(trajectory.is_over).sum(0)
        number += 1
        yield trajectory


class Counts:
    """A sum over trajectories that counts only each environment's first `quota` episodes."""

    def __init__(self, num_steps: int) -> None:
        self._episodes = self._successes = self._deaths = self._frames = 0
        self._attempts = np.zeros(num_steps, np.int64)
        self._done = np.zeros(num_steps, np.int64)
        self._ends = FailedEnds(*(np.zeros(num_steps, np.int64) for _ in FailedEnds._fields))
        self._lengths: list[np.ndarray] = []

    def add(self, trajectory: Trajectory, quota: int) -> None:
        """Count a trajectory's episodes."""
        names = (
            "is_over",
            "is_finished",
            "is_dead",
            "is_stranded",
            "is_boundary",
            "is_done",
            "step",
            "episode",
            "time",
        )
        t = {name: np.asarray(getattr(trajectory, name)) for name in names}
        counts = t["episode"] < quota
        over = t["is_over"] & counts
        self._episodes += int(over.sum())
        self._successes += int((over & t["is_finished"]).sum())
        self._deaths += int((over & t["is_dead"]).sum())
        self._lengths.append(t["time"][over & t["is_finished"]])
        np.add.at(self._attempts, t["step"][t["is_boundary"] & counts], 1)
        np.add.at(self._done, t["step"][t["is_done"] & counts], 1)
        is_late = ~t["is_dead"] & ~t["is_finished"] & ~t["is_stranded"]
        for ends, kind in zip(self._ends, (t["is_dead"], is_late, t["is_stranded"]), strict=True):
            np.add.at(ends, t["step"][over & kind], 1)
        self._frames += t["is_over"].size

    def evaluation(self) -> Evaluation:
        """Return the counts as an `Evaluation`."""
        lengths = np.concatenate(self._lengths)
        return Evaluation(
            episodes=self._episodes,
            successes=self._successes,
            deaths=self._deaths,
            step_attempts=tuple(int(x) for x in self._attempts),
            step_successes=tuple(int(x) for x in self._done),
            step_ends=tuple(FailedEnds(*map(int, ends)) for ends in zip(*self._ends, strict=True)),
            median_length=float(np.median(lengths)) if lengths.size else float("nan"),
            frames=self._frames,
        )
