"""The reference semantics of expressions, in numpy float32: used by proofs and to test the JAX evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flowrl_core.programs.expressions import TINY, Expression
from flowrl_core.programs.registers import Interval, Registers

__all__ = ["OPERATIONS", "apply", "evaluate", "evaluate_named", "every_value", "single"]

_ONE = np.float32(1)


def _truth(is_true: Any) -> Any:
    return np.asarray(is_true, np.float32)


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / np.where(y == 0, _ONE, y),
    "min": np.minimum,
    "max": np.maximum,
    "abs": np.abs,
    "tanh": np.tanh,
    "sqrt": lambda x: np.sqrt(np.maximum(x, np.float32(0))),
    "ge": lambda x, y: _truth(x >= y),
    "gt": lambda x, y: _truth(x > y),
    "eq": lambda x, y: _truth(x == y),
    "and": np.minimum,
    "or": np.maximum,
    "not": lambda x: _ONE - x,
    "choose": lambda condition, yes, no: np.where(condition > np.float32(0.5), yes, no),
}
"""Each operation on float32 arrays; truth values are 0 and 1."""


def evaluate(expression: Expression, registers: np.ndarray, layout: Registers) -> np.ndarray:
    """Return the values f32[...] of an expression on register rows f32[..., R]; truth values are 0 and 1."""
    registers = np.asarray(registers, np.float32)
    values = {name: registers[..., slot.index] for name, slot in layout.slots.items()}
    return np.broadcast_to(evaluate_named(expression, values), registers.shape[:-1])


def evaluate_named(expression: Expression, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the values of an expression as float32, in the common shape of the `values` (by name) that it reads."""
    known: dict[Expression, Any] = {}

    def walk(node: Expression) -> Any:
        if node not in known:
            if node.op == "constant":
                known[node] = np.float32(node.value)
            elif node.op == "fluent":
                known[node] = values[node.name]
            else:
                known[node] = apply(node.op, *(walk(a) for a in node.args))
        return known[node]

    return np.asarray(walk(expression), np.float32)


def single(value: float) -> np.ndarray:
    """Return a number rounded to float32."""
    return np.asarray(value, np.float32)


def apply(op: str, *args: Any) -> Any:
    """Return one operation's result on float32 arrays; subnormal results become zero."""
    result = OPERATIONS[op](*args)
    return np.where(np.abs(result) < np.float32(TINY), np.float32(0), result)


def every_value(expression: Expression, ranges: Mapping[str, Interval], *, limit: int) -> np.ndarray | None:
    """Return an expression's values for all whole numbers in `ranges`; None if there are more than `limit`.

    Returns:
        f32[...]: one axis per name, in the order of `ranges`; length 1 if the expression does not read the name.
    """
    shape = [int(high - low) + 1 for low, high in ranges.values()]
    if math.prod(shape) > limit:
        return None
    values = {}
    for axis, (name, (low, high)) in enumerate(ranges.items()):
        line = np.arange(low, high + 1, dtype=np.float32)
        values[name] = line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    found = evaluate_named(expression, values)
    return found.reshape(found.shape or [1] * len(shape))
