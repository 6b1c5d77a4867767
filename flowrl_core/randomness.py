"""Named streams of random numbers, told by a seed and a path of names: no two uses share numbers by accident."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax

__all__ = ["jax_stream", "numpy_stream"]


def _number(name: str | int) -> int:
    return name if isinstance(name, int) else zlib.crc32(name.encode())


def numpy_stream(seed: int, *path: str | int) -> np.random.Generator:
    """The numpy generator of the stream `path` under `seed`."""
    return np.random.default_rng([seed, *(_number(name) for name in path)])


def jax_stream(seed: int, *path: str | int) -> jax.Array:
    """The JAX key (uint32[2]) of the stream `path` under `seed`, made by folding in one name after another."""
    import jax

    key = jax.random.PRNGKey(seed)
    for name in path:
        key = jax.random.fold_in(key, _number(name))
    return key
