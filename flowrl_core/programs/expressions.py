"""Expressions of the program language and the closed intervals that hold all their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flowrl_core.programs.registers import Interval

__all__ = ["TINY", "Expression", "Kind", "Op", "bounds", "fluents", "interval_of"]

Kind = Literal["number", "truth"]
Op = Literal[
    "constant", "fluent", "add", "sub", "mul", "div", "min", "max", "abs", "tanh", "sqrt",
    "ge", "gt", "eq", "and", "or", "not", "choose",
]  # fmt: skip

TINY = 2.0**-126
"""Smallest normal float32. Results closer to zero become zero, since only some devices flush subnormals."""

# Division, root and tanh are not correctly rounded on every device: allow about four units in the last place.
_SLACK = 2.0**-21


@dataclass(frozen=True, eq=False)
class Expression:
    """A frozen node of an expression. The parser creates each distinct node once, so nodes compare by identity.

    Attributes:
        op: the operation; truth values are 0 and 1.
        kind: number or truth value.
        interval: closed range that holds every value it takes in float32.
        args: the operands; for `choose`: condition, value if true, value if false.
        value: of a constant, rounded to float32.
        name: of a fluent.
    """

    op: Op
    kind: Kind
    interval: Interval
    args: tuple[Expression, ...] = ()
    value: float = 0.0
    name: str = ""


def fluents(expression: Expression) -> tuple[str, ...]:
    """Return the names that an expression reads, sorted."""
    names: set[str] = set()
    seen: set[Expression] = set()
    todo = [expression]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(node.args)
            if node.op == "fluent":
                names.add(node.name)
    return tuple(sorted(names))


def bounds(expression: Expression, ranges: Mapping[str, Interval]) -> Interval:
    """Return the interval of an expression if each name it reads stays within `ranges`."""
    known: dict[Expression, Interval] = {}

    def walk(node: Expression) -> Interval:
        if node not in known:
            if node.op == "fluent":
                known[node] = ranges[node.name]
            elif node.op == "constant":
                known[node] = node.interval
            else:
                known[node] = interval_of(node.op, [walk(a) for a in node.args], is_same=_is_same(node.args))
        return known[node]

    return walk(expression)


def interval_of(op: Op, args: Sequence[Interval], *, is_same: bool = False) -> Interval:
    """Return the interval that contains `op` of operands from the intervals `args`, in float32 on any device.

    Sums and products are correctly rounded on every device and rounding is monotonic, so rounding the ends of the exact
    interval gives the float32 interval (float64 has more than twice the digits, so double rounding is harmless).

    Args:
        op: the operation; neither `constant` nor `fluent`.
        args: closed intervals of the operands; a divisor's excludes 0, a root's operand is non-negative.
        is_same: whether both operands are the same expression.
    """
    if is_same and op in _OF_SAME:
        return _OF_SAME[op](args[0])
    return _RULES[op](args)


def _is_same(args: Sequence[Expression]) -> bool:
    return len(args) == 2 and args[0] is args[1]


def _single(x: float) -> float:
    """Return `x` rounded to float32: overflow becomes infinite, subnormals become zero."""
    if abs(x) > 3.4e38:
        return math.copysign(math.inf, x)
    x = float(np.float32(x))
    return x if abs(x) >= TINY else 0.0


def _hull(*values: float) -> Interval:
    return _single(min(values)), _single(max(values))


def _wide(low: float, high: float) -> Interval:
    return _hull(low - abs(low) * _SLACK, high + abs(high) * _SLACK)


def _divide(xs: Sequence[Interval]) -> Interval:
    (a, b), (c, d) = xs
    quotients = [p / q for p in (a, b) for q in (c, d)]
    return _wide(min(quotients), max(quotients))


def _absolute(x: Interval) -> Interval:
    low, high = x
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _tanh(x: Interval) -> Interval:
    low, high = _wide(math.tanh(x[0]), math.tanh(x[1]))
    return max(low, -1.0), min(high, 1.0)


def _truth(is_always: bool, is_never: bool) -> Interval:
    return float(is_always), float(not is_never)


def _choose(xs: Sequence[Interval]) -> Interval:
    condition, yes, no = xs
    if condition[0] == 1:
        return yes
    if condition[1] == 0:
        return no
    return min(yes[0], no[0]), max(yes[1], no[1])


_RULES: dict[str, Callable[[Sequence[Interval]], Interval]] = {
    "add": lambda xs: _hull(xs[0][0] + xs[1][0], xs[0][1] + xs[1][1]),
    "sub": lambda xs: _hull(xs[0][0] - xs[1][1], xs[0][1] - xs[1][0]),
    "mul": lambda xs: _hull(*(p * q for p in xs[0] for q in xs[1])),
    "div": _divide,
    "min": lambda xs: (min(xs[0][0], xs[1][0]), min(xs[0][1], xs[1][1])),
    "max": lambda xs: (max(xs[0][0], xs[1][0]), max(xs[0][1], xs[1][1])),
    "abs": lambda xs: _absolute(xs[0]),
    "tanh": lambda xs: _tanh(xs[0]),
    "sqrt": lambda xs: _wide(math.sqrt(xs[0][0]), math.sqrt(xs[0][1])),
    "ge": lambda xs: _truth(xs[0][0] >= xs[1][1], xs[0][1] < xs[1][0]),
    "gt": lambda xs: _truth(xs[0][0] > xs[1][1], xs[0][1] <= xs[1][0]),
    "eq": lambda xs: _truth(xs[0][0] == xs[0][1] == xs[1][0] == xs[1][1], xs[0][1] < xs[1][0] or xs[1][1] < xs[0][0]),
    "and": lambda xs: (min(xs[0][0], xs[1][0]), min(xs[0][1], xs[1][1])),
    "or": lambda xs: (max(xs[0][0], xs[1][0]), max(xs[0][1], xs[1][1])),
    "not": lambda xs: (1 - xs[0][1], 1 - xs[0][0]),
    "choose": _choose,
}
_OF_SAME: dict[str, Callable[[Interval], Interval]] = {
    "sub": lambda x: (0.0, 0.0),
    "mul": lambda x: _hull(*(end * end for end in _absolute(x))),
    "ge": lambda x: (1.0, 1.0),
    "gt": lambda x: (0.0, 0.0),
    "eq": lambda x: (1.0, 1.0),
}
