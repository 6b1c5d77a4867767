"""Random streams identified by a seed and a path of names, so that no two uses share numbers by accident."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["jax_stream", "jax_substream", "numpy_stream"]


def _number(name: str | int) -> int:
    return name if isinstance(name, int) else zlib.crc32(name.encode())


def numpy_stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return the numpy generator of the stream `path` under `seed`."""
    return np.random.default_rng([seed, *(_number(name) for name in path)])


def jax_stream(seed: int, *path: str | int) -> np.ndarray:
    """Return the key of the stream `path` under `seed` for JAX's default generator, u32[2].

    Derived by numpy's `SeedSequence`: with JAX's `fold_in`, every process would load one more compiled program.
    """
    return _key(seed, *path)


def jax_substream(key: np.ndarray, *path: str | int) -> np.ndarray:
    """Return the key of the stream `path` under another key, u32[2]."""
    return _key(*(int(word) for word in key), *path)


def _key(*path: str | int) -> np.ndarray:
    return np.random.SeedSequence([_number(name) for name in path]).generate_state(2, np.uint32)
