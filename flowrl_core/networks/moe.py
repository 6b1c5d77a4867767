"""A mixture of experts with one active expert per sample, at about the cost of one expert.

Parameters are stacked: every leaf is [K, ...]. Every routing is computed exactly, even if all samples go to one expert:
there is no capacity limit and no sample is dropped. Two forms compute the same:

- blocks, for CPUs: the samples are put in groups by their expert, the groups are cut into blocks of fixed sizes, and a
  loop as long as the number of *used* blocks runs one expert's network on each. The idea is that of MegaBlocks (Gale et
  al. 2022, arXiv:2211.15841); here a block is a whole network, not a tile.
- ragged, for GPUs: one `jax.lax.ragged_dot` per layer over the samples sorted by expert. Its results are tested on the
  CPU, where XLA computes it at K times the cost; its speed on a GPU has not been measured.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "Apply",
    "Form",
    "block_sizes",
    "dense_apply",
    "put_expert",
    "routed_apply",
    "take_expert",
]

Apply = Callable[[Any, jax.Array], Any]
"""One expert's network: (its parameters, x [B, ...]) -> tree of outputs, leaves [B, ...]."""

Form = Literal["blocks", "ragged"]
"""How `routed_apply` computes: a loop over blocks, for CPUs, or layers of ragged products, for GPUs."""

_COSTLY = (jax.lax.dot_general_p, jax.lax.conv_general_dilated_p, jax.lax.tanh_p)
"""Operations whose results the backward pass reads from memory instead of computing them again."""


def take_expert(params: Any, k: int | jax.Array) -> Any:
    """Return the tree of expert k from stacked parameters [K, ...]; k may be traced and is clamped to 0..K-1."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, k, 0, keepdims=False), params)


def put_expert(params: Any, k: int | jax.Array, expert: Any) -> Any:
    """Return the stacked parameters [K, ...] with expert k replaced by the tree `expert`."""
    return jax.tree.map(lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, k, 0), params, expert)


def block_sizes(num_samples: int, num_experts: int) -> tuple[int, ...]:
    """Return efficient block sizes for B samples and K experts, largest first.

    A block costs one pass over an expert's parameters (about as much as 25 samples), each row of padding costs as much
    as a sample, and each size costs the compilation of one more copy of the network. So for groups of hundreds of
    samples the sizes are ten multiples of an eighth of the mean group: under an even routing an expert needs one block,
    of which a sixteenth is padding; larger groups take several blocks. Few sizes suffice if groups are so large that
    the padding of a last block is negligible, and for the small batches of a rollout, in which most experts have no
    samples.
    """
    mean = _power_of_two(max(1, num_samples // num_experts))
    if mean >= 2048:
        return (1024, 512, 256, 128)
    if mean >= 256:
        return tuple(mean // 8 * number for number in range(10, 0, -1))
    few = (8 * mean, 4 * mean, 3 * mean, 2 * mean, mean, mean // 2)
    return tuple(sorted({max(8, size) for size in few}, reverse=True))


def routed_apply(
    apply: Apply,
    params: Any,
    x: jax.Array,
    expert: jax.Array,
    *,
    block: int | Sequence[int] | None = None,
    form: Form | None = None,
) -> Any:
    """Return the outputs `apply(take_expert(params, expert[b]), x[b])` of all samples, leaves [B, ...].

    The result is differentiable with respect to `params` alone: `x` is treated as a constant.

    Args:
        apply: one expert's network. It must treat samples independently (no batch statistics).
        params: stacked parameters, leaves [K, ...].
        x: [B, ...].
        expert: i32[B], in 0..K-1; samples with K have zeros for outputs.
        block: rows in a block, or sizes of blocks, largest first; None for `block_sizes` of B and K. Ignored in the
            ragged form.
        form: None for "blocks" if JAX's default backend is the CPU, else "ragged". The ragged form requires `apply` to
            be that of a network of flax's `nn.Dense` layers.

    Raises:
        ValueError: `expert` does not have one entry per sample, block sizes are not in descending order, or the ragged
            form does not support one of the network's layers.
    """
    x, expert = jax.lax.stop_gradient(jnp.asarray(x)), jnp.asarray(expert)
    if x.shape[:1] != expert.shape:
        raise ValueError(f"one expert per sample: x has shape {x.shape}, expert {expert.shape}")
    if form is None:
        form = "blocks" if jax.default_backend() == "cpu" else "ragged"
    if form == "ragged":
        from flowrl_core.networks.ragged import ragged_apply  # exported functions run without flax

        return ragged_apply(apply, params, x, expert)
    num_experts = jax.tree.leaves(params)[0].shape[0]
    if block is None:
        block = block_sizes(x.shape[0], num_experts)
    sizes = _ascending((block,) if isinstance(block, int) else tuple(block), x.shape[0])
    return _run_blocks(apply, sizes, params, x, _layout(expert, num_experts, sizes))


def dense_apply(apply: Apply, params: Any, x: jax.Array, expert: jax.Array) -> Any:
    """Return `routed_apply`'s outputs by running all K experts on all samples: the reference, at K times the cost."""
    everything = jax.vmap(apply, in_axes=(0, None))(params, jax.lax.stop_gradient(x))
    sample = jnp.arange(expert.shape[0])
    return jax.tree.map(lambda leaf: leaf.at[expert, sample].get(mode="fill", fill_value=0), everything)


def _ascending(block: tuple[int, ...], num_samples: int) -> tuple[int, ...]:
    """Return the sizes in ascending order, without those larger than any group needs."""
    if not block or block[-1] < 1 or any(large <= small for large, small in zip(block, block[1:], strict=False)):
        raise ValueError(f"block sizes {block}: largest first, no two equal, each at least 1")
    smaller = (*block[1:], 0)
    return tuple(size for size, below in zip(block, smaller, strict=True) if below < max(num_samples, 1))[::-1]


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is at most `number`; 0 for 0."""
    return 1 << (number.bit_length() - 1) if number else 0


class _Layout(NamedTuple):
    """The layout of B samples in P rows, sorted by expert; each expert's rows are cut into blocks, N at most in all.

    Attributes:
        place: i32[B] row of each sample; P for an unused sample.
        source: i32[P] sample in each row; B where the row is padding.
        expert, start: i32[N] expert and first row of each block, sorted by size.
        bound: i32[S + 1] block j has the s-th size if bound[s] <= j < bound[s + 1].
    """

    place: jax.Array
    source: jax.Array
    expert: jax.Array
    start: jax.Array
    bound: jax.Array


def _layout(expert: jax.Array, num_experts: int, sizes: tuple[int, ...]) -> _Layout:
    """Return the layout in which all blocks of an expert but the last have the largest size.

    The last one has the smallest of the `sizes` (ascending) that holds the remaining samples.
    """
    num_samples, largest = expert.shape[0], sizes[-1]
    num_rows = _num_rows(num_samples, num_experts, sizes)
    k = jnp.arange(num_experts)
    rank, count = _rank(expert, num_experts)
    num_largest = jnp.maximum(count - 1, 0) // largest
    rest = count - num_largest * largest
    level = jnp.where(count > 0, (rest[:, None] > jnp.array(sizes)).sum(1), -1)
    rows = num_largest * largest + jnp.where(count > 0, jnp.array(sizes)[level], 0)
    first = jnp.cumsum(rows) - rows
    last_start = first + num_largest * largest

    # Experts without samples come first, then the last blocks by size, then the full ones: blocks of equal size,
    # including the largest, are adjacent.
    is_before = (level[:, None] < level) | ((level[:, None] == level) & (k[:, None] < k))
    order = ((is_before.sum(0) == k[:, None]) * k).sum(1)
    end = jnp.cumsum(num_largest)
    block = jnp.arange(num_samples // largest)
    owner = jnp.minimum((block[:, None] >= end).sum(1), num_experts - 1)
    start = first[owner] + (block - (end - num_largest)[owner]) * largest
    bound = (level < jnp.arange(len(sizes))[:, None]).sum(1)

    place = jnp.where(expert < num_experts, first[jnp.minimum(expert, num_experts - 1)] + rank, num_rows)
    source = jnp.full(num_rows, num_samples, jnp.int32)
    source = source.at[place].set(jnp.arange(num_samples, dtype=jnp.int32), mode="drop")
    return _Layout(
        place,
        source,
        jnp.concatenate([order, owner]),
        jnp.concatenate([last_start[order], start]),
        jnp.concatenate([bound, num_experts + end[-1:]]),
    )


def _rank(expert: jax.Array, num_experts: int) -> tuple[jax.Array, jax.Array]:
    """Return i32[B] number of earlier samples of the same expert, and i32[K] number of samples of each expert."""
    is_mine = (expert[:, None] == jnp.arange(num_experts)).astype(jnp.int32)
    return ((jnp.cumsum(is_mine, axis=0) - is_mine) * is_mine).sum(1), is_mine.sum(0)


def _num_rows(num_samples: int, num_experts: int, sizes: tuple[int, ...]) -> int:
    """Return rows sufficient for any routing: a group of c samples takes at most `slope * c + smallest` rows."""
    num_groups, steps = min(num_experts, num_samples), list(itertools.pairwise(sizes))
    padding = max([sizes[0], *(above - below for below, above in steps)]) - 1
    slope = max([1.0, *((above - sizes[0]) / (below + 1) for below, above in steps)])
    return min(num_samples + num_groups * padding, math.ceil(slope * num_samples) + num_groups * sizes[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run_blocks(apply: Apply, sizes: tuple[int, ...], params: Any, x: jax.Array, layout: _Layout) -> Any:
    """Return the outputs of all samples, leaves [B, ...]; zeros for unused samples."""

    def run(size: int, j: jax.Array) -> Any:
        return apply(take_expert(params, layout.expert[j]), _rows(x, layout, j, size))

    return _restore(_collect(run, layout, sizes), layout)


def _run_blocks_forward(
    apply: Apply, sizes: tuple[int, ...], params: Any, x: jax.Array, layout: _Layout
) -> tuple[Any, Any]:
    def run(size: int, j: jax.Array) -> tuple[Any, list[jax.Array]]:
        rows = _rows(x, layout, j, size)
        outputs, _, residuals, is_known = _linearise(apply, take_expert(params, layout.expert[j]), rows)
        return outputs, [saved for saved, known in zip(residuals, is_known, strict=True) if not known]

    outputs, saved = _collect(run, layout, sizes)
    return _restore(outputs, layout), (params, x, layout, saved)


def _run_blocks_backward(
    apply: Apply, sizes: tuple[int, ...], residuals: Any, cotangent: Any
) -> tuple[Any, None, None]:
    params, x, layout, saved = residuals

    def block_gradient(size: int, j: jax.Array) -> Any:
        # The forward pass is traced again only for its structure; the saved values replace its results, so the compiler
        # removes it as dead code.
        expert = take_expert(params, layout.expert[j])
        _, pull, residuals, is_known = _linearise(apply, expert, _rows(x, layout, j, size))
        rest = (jax.lax.dynamic_slice_in_dim(rows, layout.start[j], size) for rows in saved)
        residuals = [value if known else next(rest) for value, known in zip(residuals, is_known, strict=True)]
        (gradient,) = pull(jax.tree.map(lambda leaf: _rows(leaf, layout, j, size), cotangent), *residuals)
        return gradient

    def put(size: int, j: jax.Array, gradient: Any) -> Any:
        k, block = layout.expert[j], block_gradient(size, j)
        # An expert has at most one block of each size but the largest, which comes last.
        if size == sizes[-1]:
            block = jax.tree.map(jnp.add, take_expert(gradient, k), block)
        return put_expert(gradient, k, block)

    return _for_each_block(put, layout, sizes, jax.tree.map(jnp.zeros_like, params)), None, None


_run_blocks.defvjp(_run_blocks_forward, _run_blocks_backward)


def _for_each_block(body: Callable[..., Any], layout: _Layout, sizes: tuple[int, ...], carry: Any) -> Any:
    """Return the result of `carry = body(size, j, carry)` over the used blocks j, from the smallest to the largest."""
    for level, size in enumerate(sizes):
        first, end = layout.bound[level], layout.bound[level + 1]
        carry = jax.lax.fori_loop(first, end, functools.partial(body, size), carry)
    return carry


def _collect(run: Callable[..., Any], layout: _Layout, sizes: tuple[int, ...]) -> Any:
    """Return the rows `run(size, j)` of each used block j, leaves [P, ...]; zeros in other rows."""
    num_rows = layout.source.shape[0]
    shapes = jax.eval_shape(functools.partial(run, sizes[0]), jnp.int32(0))
    empty = jax.tree.map(lambda one: jnp.zeros((num_rows, *one.shape[1:]), one.dtype), shapes)

    def put(size: int, j: jax.Array, collected: Any) -> Any:
        start = layout.start[j]
        return jax.tree.map(
            lambda all_rows, rows: jax.lax.dynamic_update_slice_in_dim(all_rows, rows, start, 0),
            collected,
            run(size, j),
        )

    return _for_each_block(put, layout, sizes, empty)


def _restore(rows: Any, layout: _Layout) -> Any:
    """Return leaves [P, ...] in the order of the samples, [B, ...]."""
    return jax.tree.map(lambda leaf: leaf.at[layout.place].get(mode="fill", fill_value=0), rows)


def _rows(samples: jax.Array, layout: _Layout, j: jax.Array, size: int) -> jax.Array:
    """Return the samples of block j, [size, ...], with zeros in padding; this never copies all of `samples`."""
    source = jax.lax.dynamic_slice_in_dim(layout.source, layout.start[j], size)
    return samples.at[source].get(mode="fill", fill_value=0)


def _linearise(
    apply: Apply, expert: Any, rows: jax.Array
) -> tuple[Any, Callable[..., Any], Sequence[jax.Array], list[bool]]:
    """Return outputs, the pull-back as a function of (cotangents, *residuals), the residuals and which are known.

    A known residual is a parameter or the input itself, which need not be saved.
    """

    @functools.partial(jax.checkpoint, policy=functools.partial(_is_saved, rows.shape[0]), prevent_cse=False)
    def network(expert: Any) -> Any:
        return apply(expert, rows)

    outputs, pull = jax.vjp(network, expert)
    pull, residuals = jax.closure_convert(pull, outputs)
    given = {id(leaf) for leaf in jax.tree.leaves((expert, rows))}
    return outputs, pull, residuals, [id(residual) in given for residual in residuals]


def _is_saved(num_rows: int, primitive: Any, *operands: Any, **params: Any) -> bool:
    """Whether a result is costly and has one row per row of a block, so that the layout's rows can store it."""
    if primitive not in _COSTLY:
        return False
    shape = jax.eval_shape(functools.partial(primitive.bind, **params), *operands).shape
    return shape[:1] == (num_rows,)
