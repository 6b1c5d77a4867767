"""The network of one expert: an actor and a critic of three tanh layers each, which share nothing but their input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

__all__ = ["ActorCritic", "initial_params"]

_HIDDEN_GAIN = 2.0**0.5
_ACTOR_GAIN = 0.01
_CRITIC_GAIN = 1.0


class ActorCritic(nn.Module):
    """Action logits and the value of observations, by two separate networks of three tanh layers.

    The first layers of actor and critic are one matrix (columns: actor, then critic), since both read the wide
    observation: one pass over it instead of two. Start from `initial_params`; the parameters that `init` makes have
    the same structure but not the same scale.

    Attributes:
        width: units of each hidden layer, in the actor and again in the critic.
        num_actions: A.
    """

    width: int
    num_actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(logits f32[B, A], value f32[B]) of x f32[B, D]."""
        first = jnp.tanh(nn.Dense(2 * self.width, name="first")(x))
        actor, critic = jnp.split(first, 2, axis=-1)
        for layer in ("second", "third"):
            actor = jnp.tanh(nn.Dense(self.width, name=f"actor_{layer}")(actor))
            critic = jnp.tanh(nn.Dense(self.width, name=f"critic_{layer}")(critic))
        logits = nn.Dense(self.num_actions, name="logits")(actor)
        value = nn.Dense(1, name="value")(critic)
        return logits, value[..., 0]


def initial_params(
    rng: np.random.Generator, observation_size: int, width: int, num_actions: int
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Fresh parameters of one expert, numpy arrays in the structure of `ActorCritic.init`.

    Orthogonal kernels (gain sqrt 2 in hidden layers, 0.01 for the logits so that the first policy is nearly uniform,
    1 for the value) and zero biases, after Andrychowicz et al. 2021, arXiv:2006.05990. Made in numpy: two batched QR
    decompositions in one compiled program deadlock XLA on two cores.

    Args:
        rng: consumed; the same generator state gives the same parameters.
    """
    hidden = (width, width)
    first = [_orthogonal(rng, (observation_size, width), _HIDDEN_GAIN) for _ in ("actor", "critic")]
    kernels = {
        "first": np.concatenate(first, axis=1),
        "actor_second": _orthogonal(rng, hidden, _HIDDEN_GAIN),
        "critic_second": _orthogonal(rng, hidden, _HIDDEN_GAIN),
        "actor_third": _orthogonal(rng, hidden, _HIDDEN_GAIN),
        "critic_third": _orthogonal(rng, hidden, _HIDDEN_GAIN),
        "logits": _orthogonal(rng, (width, num_actions), _ACTOR_GAIN),
        "value": _orthogonal(rng, (width, 1), _CRITIC_GAIN),
    }
    return {"params": {name: _dense(kernel) for name, kernel in kernels.items()}}


def _dense(kernel: np.ndarray) -> dict[str, np.ndarray]:
    return {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)}


def _orthogonal(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """f32 `shape` with orthonormal rows or columns (whichever are fewer) times `gain`, uniform over such matrices."""
    tall = (max(shape), min(shape))
    q, r = np.linalg.qr(rng.standard_normal(tall))
    q *= np.sign(np.diag(r))  # without it the distribution depends on the sign convention of the QR routine
    return (gain * (q if shape == tall else q.T)).astype(np.float32)
