"""Evaluate programs in JAX: one function runs every table, so a new program compiles nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flowrl_core.programs.expressions import TINY
from flowrl_core.programs.tables import CODES, CONSTANT, Table

__all__ = ["evaluate"]


def evaluate(tables: Table, step: jax.Array, registers: jax.Array) -> jax.Array:
    """Return the value f32[B] of each environment's current program; a truth value is 0 or 1.

    A scan over the instructions computes each one for the whole batch with a chain of `where` over the operations: half
    the time of a switch per sample. Use only tables from `tables.lower`: an index out of range would be clamped.

    Args:
        tables: one table per plan step, arrays [S, I].
        step: current plan step of each environment, i32[B].
        registers: register rows, f32[B, R] (see `programs.registers.fill`).
    """
    num_samples, num_registers = registers.shape
    num_instructions = tables.op.shape[-1]
    columns = jnp.arange(num_samples)
    lines = Table(*(jnp.asarray(field)[step].T for field in tables))
    file = jnp.concatenate([registers.astype(jnp.float32).T, jnp.zeros((num_instructions, num_samples), jnp.float32)])

    def execute(file: jax.Array, numbered: tuple[jax.Array, Table]) -> tuple[jax.Array, None]:
        number, line = numbered

        def read(place: jax.Array) -> jax.Array:
            return file.at[place, columns].get(mode="clip")

        y = jnp.where(line.b == CONSTANT, line.k, read(line.b))
        result = _compute(line.op, read(line.a), y, read(line.c))
        return jax.lax.dynamic_update_index_in_dim(file, result, num_registers + number, 0), None

    file, _ = jax.lax.scan(execute, file, (jnp.arange(num_instructions), lines))
    return file[-1]


def _compute(op: jax.Array, x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
    results = {
        "add": x + y,
        "sub": x - y,
        "mul": x * y,
        "div": x / jnp.where(y == 0, 1.0, y),
        "min": jnp.minimum(x, y),
        "max": jnp.maximum(x, y),
        "abs": jnp.abs(x),
        "tanh": jnp.clip(jnp.tanh(x), -1.0, 1.0),
        "sqrt": jnp.sqrt(jnp.maximum(x, 0.0)),
        "ge": x >= y,
        "gt": x > y,
        "eq": x == y,
        "le": x <= y,
        "lt": x < y,
        "choose": jnp.where(x > 0.5, y, z),
    }
    chosen = y  # move
    for name, result in results.items():
        chosen = jnp.where(op == CODES[name], result.astype(jnp.float32), chosen)
    return jnp.where(jnp.abs(chosen) < TINY, 0.0, chosen)
