"""The sum of each reward term, measured by playing the same episodes once for each term.

A reward does not influence the episodes: with the same key, the plan with another reward table gives the same
trajectory and that table's rewards. A table is data, so this compiles nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowrl_core.envs.automaton import PlanArrays
from flowrl_core.envs.worlds import WorldPool
from flowrl_core.learning.evaluation import Counts, Evaluation, played
from flowrl_core.learning.learner import Learner
from flowrl_core.learning.rollout import Trajectory
from flowrl_core.programs.tables import Table, stack
from flowrl_core.skills.model import MAX_STEPS

__all__ = ["TermSums", "play_term"]


@dataclass(frozen=True)
class TermSums:
    """Statistics of one reward term in the plan's last step.

    Attributes:
        tries: episodes that reached the last step.
        fired: share of the step's frames in which the term was not 0.
        mean: mean over the tries of the term's sum.
        mean_won: the same over the tries that finished the plan.
    """

    tries: int
    fired: float
    mean: float
    mean_won: float


def play_term(
    learner: Learner, params: Any, plan: PlanArrays, term: Table, pool: WorldPool, quota: int, key: np.ndarray
) -> tuple[Evaluation, TermSums]:
    """Return the counts of `quota` episodes of each environment, and a term's statistics in their last step.

    Args:
        pool: fresh worlds, at least `quota` for each environment.
        key: the source of all randomness; the same key plays the same episodes for every term.
    """
    counts = Counts(int(plan.num_steps))
    sums = _Sums(int(plan.num_steps) - 1, learner.shapes.num_envs, quota)
    plan = dataclasses.replace(plan, reward=stack([term], MAX_STEPS))
    for trajectory in played(learner, params, plan, pool, quota, key):
        counts.add(trajectory, quota)
        sums.add(trajectory)
    return counts.evaluation(), sums.result()


class _Sums:
    """The rewards of a plan step, summed by environment and episode."""

    def __init__(self, step: int, num_envs: int, quota: int) -> None:
        self._step, self._quota = step, quota
        self._sum = np.zeros((num_envs, quota))
        self._is_tried = np.zeros((num_envs, quota), bool)
        self._is_won = np.zeros((num_envs, quota), bool)
        self._frames = self._fired = 0

    def add(self, trajectory: Trajectory) -> None:
        step, episode, is_finished, reward = (
            np.asarray(leaf)
            for leaf in (trajectory.step, trajectory.episode, trajectory.is_finished, trajectory.reward)
        )
        counts = (step == self._step) & (episode < self._quota)
        where = (np.nonzero(counts)[1], episode[counts])
        np.add.at(self._sum, where, reward[counts])
        self._is_tried[where] = True
        np.logical_or.at(self._is_won, where, is_finished[counts])
        self._frames += int(counts.sum())
        self._fired += int((reward[counts] != 0).sum())

    def result(self) -> TermSums:
        return TermSums(
            tries=int(self._is_tried.sum()),
            fired=self._fired / max(self._frames, 1),
            mean=float(self._sum.sum() / max(self._is_tried.sum(), 1)),
            mean_won=float(self._sum[self._is_won].sum() / max(self._is_won.sum(), 1)),
        )
