"""Mixture of experts with one active expert per sample, at about the cost of one expert.

Parameters are stacked: every leaf is [K, ...]. Samples are put in groups by their expert and the groups are cut into
blocks of fixed sizes; a loop as long as the number of *used* blocks runs one expert's network on each. So every routing
is exact, also when all samples go to one expert: there is no capacity and nothing is dropped. The idea of block-wise
experts is that of MegaBlocks (Gale et al. 2022, arXiv:2211.15841); here a block is a whole network, not a tile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "Apply",
    "Groups",
    "block_sizes",
    "dense_apply",
    "group_by_expert",
    "put_expert",
    "routed_apply",
    "take_expert",
]

Apply = Callable[[Any, jax.Array], Any]
"""One expert's network: (its parameters, x [B, ...]) -> tree of outputs, leaves [B, ...]."""

_COSTLY = (jax.lax.dot_general_p, jax.lax.conv_general_dilated_p, jax.lax.tanh_p)
"""What the backward pass reads from memory rather than computes again."""


class Groups(NamedTuple):
    """B samples laid out in N blocks of one expert each.

    Attributes:
        slot: i32[B] place of each sample in the layout; N * block for a sample that is not in it.
        source: i32[N * block] sample at each place; B where the place is empty.
        expert: i32[N] expert of each block; anything in 0..K-1 for unused blocks.
        num_blocks: i32[] used blocks; they are the first ones, ordered by expert.
    """

    slot: jax.Array
    source: jax.Array
    expert: jax.Array
    num_blocks: jax.Array


def take_expert(params: Any, k: int | jax.Array) -> Any:
    """The tree of expert k from stacked parameters [K, ...]; k may be traced and is clamped to 0..K-1."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, k, 0, keepdims=False), params)


def put_expert(params: Any, k: int | jax.Array, expert: Any) -> Any:
    """Stacked parameters [K, ...] with expert k replaced by the tree `expert`."""
    return jax.tree.map(lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, k, 0), params, expert)


def group_by_expert(expert: jax.Array, num_experts: int, block: int) -> Groups:
    """The samples grouped by expert, each group padded to a multiple of `block`; within a group the order is kept.

    There are N = (B + K * (block - 1)) // block blocks: enough for any routing.

    Args:
        expert: i32[B], in 0..K-1, or K for a sample that is not used.
        num_experts: K.
        block: places in a block.
    """
    return _ladder(expert, num_experts, (block,))[0]


def block_sizes(num_samples: int, num_experts: int) -> tuple[int, ...]:
    """Sizes of blocks that serve B samples and K experts well, largest first.

    A group is cut like a sum of money into coins: as many large blocks as fit, then smaller ones, so that padding is
    less than one smallest block per expert. Each block costs a pass over one expert's parameters, hence few sizes, and
    the largest beyond a mean group (routings are seldom even). Measured on CPU: width 512 with 8,192 samples, and width
    64 with 64 to 1,024.
    """
    largest = min(1024, max(8, _power_of_two(4 * num_samples // num_experts)))
    return tuple(size for size in (largest, largest // 4, largest // 16) if size >= 8)


def routed_apply(
    apply: Apply, params: Any, x: jax.Array, expert: jax.Array, *, block: int | Sequence[int] | None = None
) -> Any:
    """The outputs `apply(take_expert(params, expert[b]), x[b])` of all samples, leaves [B, ...].

    Differentiable with respect to `params` alone: `x` is treated as a constant.

    Args:
        apply: one expert's network. Samples must not influence each other in it (no batch statistics).
        params: stacked parameters, leaves [K, ...].
        x: [B, ...].
        expert: i32[B], in 0..K-1; samples with K get zeros.
        block: rows in a block, or sizes of blocks, largest first and each a multiple of the next; `block_sizes` of B
            and K if None.

    Raises:
        ValueError: not one expert per sample, or sizes of blocks that do not fit each other.
    """
    x, expert = jnp.asarray(x), jnp.asarray(expert)
    if x.shape[:1] != expert.shape:
        raise ValueError(f"one expert per sample: x has shape {x.shape}, expert {expert.shape}")
    num_experts = jax.tree.leaves(params)[0].shape[0]
    if block is None:
        block = block_sizes(x.shape[0], num_experts)
    levels = _ladder(expert, num_experts, (block,) if isinstance(block, int) else tuple(block))
    outputs = _run_blocks(apply, params, x, levels)

    place, start = jnp.full_like(expert, sum(level.source.shape[0] for level in levels)), 0
    for level in levels:
        num_places = level.source.shape[0]
        place = jnp.where(level.slot < num_places, start + level.slot, place)
        start += num_places

    def restore(*blocks: jax.Array) -> jax.Array:
        rows = jnp.concatenate([block.reshape(-1, *block.shape[2:]) for block in blocks])
        return rows.at[place].get(mode="fill", fill_value=0)

    return jax.tree.map(restore, *outputs)


def dense_apply(apply: Apply, params: Any, x: jax.Array, expert: jax.Array) -> Any:
    """The same outputs as `routed_apply` by running all K experts on all samples: the reference, K times the cost."""
    everything = jax.vmap(apply, in_axes=(0, None))(params, jax.lax.stop_gradient(x))
    sample = jnp.arange(expert.shape[0])
    return jax.tree.map(lambda leaf: leaf.at[expert, sample].get(mode="fill", fill_value=0), everything)


def _power_of_two(number: int) -> int:
    """The largest power of two that is at most `number`; 0 for 0."""
    return 1 << (number.bit_length() - 1) if number else 0


def _ladder(expert: jax.Array, num_experts: int, sizes: tuple[int, ...]) -> list[Groups]:
    """The layout of each size of blocks; every used sample is in exactly one of them."""
    if min(sizes) < 1 or any(large % small for large, small in zip(sizes, sizes[1:], strict=False)):
        raise ValueError(f"block sizes {sizes}: each must be a multiple of the next, and at least 1")
    num_samples = expert.shape[0]
    is_mine = (expert[:, None] == jnp.arange(num_experts)).astype(jnp.int32)
    rank = ((jnp.cumsum(is_mine, axis=0) - is_mine) * is_mine).sum(1)
    count = is_mine.sum(0)
    remaining = -(-count // sizes[-1]) * sizes[-1]
    num_padded = num_samples + num_experts * (sizes[-1] - 1)
    first = jnp.zeros_like(count)
    levels = []
    for number, size in enumerate(sizes):
        num_blocks = remaining // size
        # Below the first size a group has less than one larger block left.
        capacity = num_padded // size if number == 0 else num_experts * (sizes[number - 1] // size - 1)
        capacity = min(capacity, num_padded // size)
        if capacity > 0:
            levels.append(_layout(expert, rank, first, num_blocks, size, capacity))
        first = first + num_blocks * size
        remaining = remaining % size
    return levels


def _layout(
    expert: jax.Array, rank: jax.Array, first: jax.Array, num_blocks: jax.Array, size: int, capacity: int
) -> Groups:
    """Blocks of one size: expert k gives `num_blocks[k]` of them, which hold its samples from rank `first[k]` on."""
    num_samples, num_experts = expert.shape[0], num_blocks.shape[0]
    end = jnp.cumsum(num_blocks)
    k = jnp.minimum(expert, num_experts - 1)
    offset = rank - first[k]
    is_here = (expert < num_experts) & (offset >= 0) & (offset < num_blocks[k] * size)
    slot = jnp.where(is_here, (end - num_blocks)[k] * size + offset, capacity * size).astype(jnp.int32)
    source = jnp.full(capacity * size, num_samples, jnp.int32)
    source = source.at[slot].set(jnp.arange(num_samples, dtype=jnp.int32), mode="drop")
    owner = (jnp.arange(capacity)[:, None] >= end).sum(1)
    return Groups(slot, source, jnp.minimum(owner, num_experts - 1).astype(jnp.int32), end[-1].astype(jnp.int32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run_blocks(apply: Apply, params: Any, x: jax.Array, levels: list[Groups]) -> list[Any]:
    """Outputs of all places of each level, leaves [N, block, ...]; those of unused blocks are zeros."""

    def run(level: Groups, j: jax.Array) -> Any:
        return apply(take_expert(params, level.expert[j]), _rows(x, level, j))

    return [_collect(functools.partial(run, level), level) for level in levels]


def _run_blocks_forward(apply: Apply, params: Any, x: jax.Array, levels: list[Groups]) -> tuple[list[Any], Any]:
    def run(level: Groups, j: jax.Array) -> tuple[Any, list[jax.Array]]:
        outputs, _, residuals, is_known = _linearise(apply, take_expert(params, level.expert[j]), _rows(x, level, j))
        return outputs, [saved for saved, known in zip(residuals, is_known, strict=True) if not known]

    results = [_collect(functools.partial(run, level), level) for level in levels]
    outputs, saved = zip(*results, strict=True)
    return list(outputs), (params, x, levels, list(saved))


def _run_blocks_backward(apply: Apply, residuals: Any, cotangents: list[Any]) -> tuple[Any, None, None]:
    params, x, levels, saved = residuals
    gradient = jax.tree.map(jnp.zeros_like, params)
    for level, level_saved, level_cotangents in zip(levels, saved, cotangents, strict=True):

        def add(j: jax.Array, gradient: Any, level: Any = level, stored: Any = (level_saved, level_cotangents)) -> Any:
            block_saved, cotangent = take_expert(stored, j)
            k = level.expert[j]
            # The forward pass is traced again for its structure alone; the saved values take its place, so the
            # compiler removes it as dead code.
            _, pull, residuals, is_known = _linearise(apply, take_expert(params, k), _rows(x, level, j))
            rest = iter(block_saved)
            residuals = [value if known else next(rest) for value, known in zip(residuals, is_known, strict=True)]
            (block_gradient,) = pull(cotangent, *residuals)
            return put_expert(gradient, k, jax.tree.map(jnp.add, take_expert(gradient, k), block_gradient))

        gradient = jax.lax.fori_loop(0, level.num_blocks, add, gradient)
    return gradient, None, None


_run_blocks.defvjp(_run_blocks_forward, _run_blocks_backward)


def _collect(run: Callable[[jax.Array], Any], level: Groups) -> Any:
    """`run(j)` of every used block j, stacked: leaves [N, ...], zeros for unused blocks."""
    num_blocks = level.expert.shape[0]
    shapes = jax.eval_shape(run, jnp.int32(0))
    empty = jax.tree.map(lambda one: jnp.zeros((num_blocks, *one.shape), one.dtype), shapes)
    return jax.lax.fori_loop(0, level.num_blocks, lambda j, stack: put_expert(stack, j, run(j)), empty)


def _rows(x: jax.Array, level: Groups, j: jax.Array) -> jax.Array:
    """The samples of block j, [block, ...], zeros at empty places; gathered here, so `x` is never copied whole."""
    size = level.source.shape[0] // level.expert.shape[0]
    source = jax.lax.dynamic_slice_in_dim(level.source, j * size, size)
    return x.at[source].get(mode="fill", fill_value=0)


def _linearise(
    apply: Apply, expert: Any, rows: jax.Array
) -> tuple[Any, Callable[..., Any], Sequence[jax.Array], list[bool]]:
    """Outputs, the pull-back as a function of (cotangents, *residuals), and the residuals; a residual is known if it
    is a parameter or the input itself, which need not be saved.
    """

    @functools.partial(jax.checkpoint, policy=_is_saved, prevent_cse=False)
    def network(expert: Any) -> Any:
        return apply(expert, rows)

    outputs, pull = jax.vjp(network, expert)
    pull, residuals = jax.closure_convert(pull, outputs)
    given = {id(leaf) for leaf in jax.tree.leaves((expert, rows))}
    return outputs, pull, residuals, [id(residual) in given for residual in residuals]


def _is_saved(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive in _COSTLY
