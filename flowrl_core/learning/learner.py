"""The learner: compiled functions that serve every plan of the same shapes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from flowrl_core.envs.automaton import NUM_STEP_FEATURES, PlanArrays
from flowrl_core.envs.snapshots import Snapshots
from flowrl_core.envs.worlds import PoolUse, WorldPool, staggered, used_up
from flowrl_core.learning.functions import Functions
from flowrl_core.learning.losses import LossParts
from flowrl_core.learning.ppo import Hyperparameters
from flowrl_core.learning.rollout import Playing, RolloutMode, RolloutStats, Trajectory
from flowrl_core.learning.shapes import Shapes
from flowrl_core.randomness import jax_substream
from flowrl_core.skills.model import MAX_STEPS
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.trees import tree_class
from flowrl_core.types import Leaf
from flowrl_core.vocabulary.catalogue import vocabulary

__all__ = ["Learner", "LearnerState", "hyperparameters", "training_mode"]


def hyperparameters(training: TrainingSpec) -> Hyperparameters:
    """Return the hyperparameters as arrays of fixed dtype, so that no value causes a recompilation."""
    return Hyperparameters(
        learning_rate=np.float32(training.learning_rate),
        discount=np.float32(training.discount),
        gae_lambda=np.float32(training.gae_lambda),
        clip=np.float32(training.clip),
        entropy_weight=np.float32(training.entropy_weight),
        value_weight=np.float32(training.value_weight),
        max_grad_norm=np.float32(training.max_grad_norm),
        is_bootstrap=np.bool_(training.credit == "bootstrap"),
    )


@tree_class
class LearnerState:
    """Everything that the next update needs.

    Attributes:
        params, optimizer_state: of the K experts, leaves [K, ...].
        playing, pool, use, snapshots: the environments and the states they restart from.
        key, world_key: u32[2] the random streams of training and of new worlds.
        num_updates: i32[].
        routed_frames: i32[K] frames in which each expert acted.
    """

    params: Any
    optimizer_state: Any
    playing: Playing
    pool: WorldPool
    use: PoolUse
    snapshots: Snapshots
    key: Leaf
    world_key: Leaf
    num_updates: Leaf
    routed_frames: Leaf


_ON_DEVICE = ("params", "optimizer_state", "playing", "pool", "use", "snapshots")


@dataclass(frozen=True)
class Learner:
    """Training and evaluation for one set of shapes.

    Attributes:
        shapes: the shapes it was built for.
        functions: compiled for these shapes.
        worlds: at least P worlds read from a file, leaves [W, ...]; each run begins with P of them.
    """

    shapes: Shapes
    functions: Functions
    worlds: WorldPool

    @property
    def observation_size(self) -> int:
        """Length of an expert's input."""
        return vocabulary(self.shapes.env).observation_size + NUM_STEP_FEATURES

    @property
    def num_actions(self) -> int:
        """Number of actions A."""
        return len(vocabulary(self.shapes.env).actions)

    def init(self, params: Any, world_key: np.ndarray, key: np.ndarray, max_uses: int) -> LearnerState:
        """Return the state at the start of training.

        Args:
            params: of the K experts, leaves [K, ...].
            world_key, key: u32[2].
            max_uses: episodes that a world starts before it is replaced.
        """
        pool, use = self._first_worlds(world_key), staggered(self.shapes.world_pool, max_uses)
        playing, use = self.functions.start(pool, _device(use), training_mode())
        return LearnerState(
            params=_device(params),
            optimizer_state=self.functions.improve.zeros("optimizer_state"),
            playing=playing,
            pool=pool,
            use=use,
            snapshots=self.functions.play.zeros("snapshots"),
            key=key,
            world_key=world_key,
            num_updates=np.int32(0),
            routed_frames=np.zeros(self.shapes.num_experts, np.int32),
        )

    def resume(self, state: LearnerState) -> LearnerState:
        """Return a state read from a file (numpy leaves) as one that `step` accepts."""
        on_device = {name: _device(getattr(state, name)) for name in _ON_DEVICE}
        return dataclasses.replace(state, **on_device)

    def shape(self) -> LearnerState:
        """Return the structure of a state, with leaves that give shape and dtype."""
        of_play = self.functions.play.arguments
        return LearnerState(
            params=of_play["params"],
            optimizer_state=self.functions.improve.arguments["optimizer_state"],
            playing=of_play["playing"],
            pool=of_play["pool"],
            use=of_play["use"],
            snapshots=of_play["snapshots"],
            key=of_play["key"],
            world_key=of_play["key"],
            num_updates=np.int32(0),
            routed_frames=np.zeros(self.shapes.num_experts, np.int32),
        )

    def step(
        self, state: LearnerState, plan: PlanArrays, hyper: Hyperparameters, mode: RolloutMode, max_uses: int
    ) -> tuple[LearnerState, RolloutStats, LossParts]:
        """Do one rollout and one update; `state` is consumed.

        Args:
            mode: from `training_mode`.
            max_uses: episodes that a world starts before it is replaced.
        """
        play, improve = (jax_substream(state.key, int(state.num_updates), name) for name in ("play", "improve"))
        pool, use = self.functions.renew(state.pool, state.use, state.world_key, np.int32(max_uses))
        playing, use, snapshots, trajectory, last_value, stats = self.functions.play(
            state.params, state.playing, pool, use, state.snapshots, plan, mode, play
        )
        params, optimizer_state, parts = self.functions.improve(
            state.params, state.optimizer_state, trajectory, last_value, hyper, improve
        )
        state = LearnerState(
            params=params,
            optimizer_state=optimizer_state,
            playing=playing,
            pool=pool,
            use=use,
            snapshots=snapshots,
            key=state.key,
            world_key=state.world_key,
            num_updates=np.int32(state.num_updates + 1),
            routed_frames=np.asarray(state.routed_frames) + np.asarray(stats.routed_frames),
        )
        return state, stats, parts

    def fill(self, key: np.ndarray) -> WorldPool:
        """Return P fresh worlds that no other key generates."""
        size = self.shapes.world_pool
        return self.functions.renew(self.functions.renew.zeros("pool"), _device(used_up(size)), key, np.int32(1))[0]

    def begin(self, pool: WorldPool) -> Playing:
        """Return the environments at the start of evaluation."""
        return self.functions.start(pool, self.functions.start.zeros("use"), _EVALUATION)[0]

    def play(
        self, params: Any, playing: Playing, pool: WorldPool, plan: PlanArrays, key: np.ndarray
    ) -> tuple[Playing, Trajectory]:
        """Play T steps of evaluation; `playing` is consumed."""
        use, snapshots = (self.functions.play.zeros(argument) for argument in ("use", "snapshots"))
        playing, _, _, trajectory, _, _ = self.functions.play(
            params, playing, pool, use, snapshots, plan, _EVALUATION, key
        )
        return playing, trajectory

    def _first_worlds(self, key: np.ndarray) -> WorldPool:
        """Return P of the stored worlds, a different selection for each key."""
        number = self.worlds.obs.shape[0]
        chosen = np.random.default_rng(key).choice(number, self.shapes.world_pool, replace=False)
        return _device(jax.tree.map(lambda leaf: leaf[chosen], self.worlds))


def training_mode(
    snapshot_fraction: float = 0.0, snapshot_weight: np.ndarray | None = None, shaping_weight: float = 0.0
) -> RolloutMode:
    """Return the mode of training, as arrays of fixed dtype, so that no value causes a recompilation.

    Args:
        snapshot_fraction: share of the resets that start from entry snapshots.
        snapshot_weight: f[S] relative frequency of each step among them; None: all equal.
        shaping_weight: weight of the environment's shaping and the guards' own rewards.
    """
    weight = np.ones(MAX_STEPS) if snapshot_weight is None else snapshot_weight
    return RolloutMode(
        np.bool_(False), np.float32(snapshot_fraction), weight.astype(np.float32), np.float32(shaping_weight)
    )


_EVALUATION = training_mode()._replace(is_fixed=np.bool_(True))


def _device(tree: Any) -> Any:
    """Return the tree on the device, so that the kind of array passed in does not affect what is compiled."""
    return jax.device_put(tree)
