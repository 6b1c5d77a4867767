"""`jax.random.choice` among the open cells of a map, without the sums over all cells that are slow on a CPU.

`choice(key, cells, p=p)` computes the cumulative sum of p over all cells and searches it. XLA:CPU computes such sums as
windows of sixteen, sixteen windows of those and so on: sixteen additions for each cell. Here each block of sixteen
cells is counted, and only the sums of the blocks and of the block that holds the chosen cell are computed. The
additions are the same in the same order, so on a CPU the chosen cell is the same, bit for bit; elsewhere it is the same
up to rounding.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["choose_cell"]

_WIDTH = 16


def choose_cell(key: jax.Array, cells: Any, *, shape: tuple[int, ...], p: jax.Array) -> jax.Array:
    """Return an open cell, uniformly at random; stands in for `jax.random.choice(key, cells, shape, p=p)`.

    If no cell is open, p is NaN and the result is an arbitrary cell.

    Args:
        cells: i32[4096], the numbers 0 ... 4095.
        shape: (1,).
        p: f32[4096], 1 / (number of open cells) in each open cell and 0 in the others.

    Returns:
        i32[1]
    """
    if shape != (1,) or cells.shape != (_WIDTH**3,) or p.shape != cells.shape:
        raise NotImplementedError(f"one of {_WIDTH**3} cells can be chosen, not {shape} of {cells.shape}")
    is_open = (p > 0).reshape(_WIDTH, _WIDTH, _WIDTH)
    count = is_open.astype(jnp.float32).sum(-1)  # float: XLA:CPU takes twice as long to sum integers
    each = 1 / count.sum()
    # Not count * each: that rounds once, whereas the game's sum rounds at every cell.
    block = jnp.append(0.0, jnp.cumsum(jnp.full(_WIDTH, each)))[count.astype(jnp.int32)]
    within_region = jnp.cumsum(block, -1)
    before_region = _shift(jnp.cumsum(within_region[:, -1]))
    total = block[-1, -1] + (within_region[-1, -2] + before_region[-1])
    threshold = total * (1 - jax.random.uniform(key, dtype=p.dtype))

    i = jnp.maximum((before_region < threshold).sum() - 1, 0)
    after_block = within_region[i] + before_region[i]
    j = jnp.minimum((after_block < threshold).sum(), _WIDTH - 1)
    before_block = jnp.where(j > 0, after_block[j - 1], before_region[i])
    after_cell = jnp.cumsum(jnp.where(is_open[i, j], each, 0)) + before_block
    k = (after_cell < threshold).sum()
    return ((i * _WIDTH + j) * _WIDTH + k).astype(jnp.int32).reshape(shape)


def _shift(x: jax.Array) -> jax.Array:
    """Return [0, x[0], x[1], ...] without the last element of x."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
