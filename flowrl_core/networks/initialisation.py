"""Initial parameters of an expert, in numpy alone: no JAX, no flax."""

from __future__ import annotations

import numpy as np

__all__ = ["initial_params"]

_HIDDEN_GAIN = 2.0**0.5
_ACTOR_GAIN = 0.01
_CRITIC_GAIN = 1.0


def initial_params(
    rng: np.random.Generator, observation_size: int, width: int, num_actions: int
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return initial parameters of one expert, numpy arrays in the structure of `ActorCritic.init`.

    Kernels are orthogonal (gain sqrt 2 in hidden layers, 0.01 for the logits so that the first policy is nearly
    uniform, 1 for the value) and biases zero, after Andrychowicz et al. 2021, arXiv:2006.05990. They are computed in
    numpy because two batched QR decompositions in one compiled program deadlock XLA on two cores.

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
    """Return an f32 matrix with orthonormal rows or columns (whichever are fewer) times `gain`, uniformly random."""
    tall = (max(shape), min(shape))
    q, r = np.linalg.qr(rng.standard_normal(tall))
    q *= np.sign(np.diag(r))  # otherwise the distribution depends on the sign convention of the QR routine
    return (gain * (q if shape == tall else q.T)).astype(np.float32)
