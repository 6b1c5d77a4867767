"""Three-address tables: a program as arrays of one fixed shape, so that a new program needs no recompilation.

A table operates on the register file: the R registers of a moment, then one slot for the result of each of the I
instructions. An instruction computes `op` of the slots a, b and c, where b may be the constant k instead. The last
result is the program's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flowrl_core.errors import InputError, ProgramError
from flowrl_core.programs.expressions import Expression
from flowrl_core.programs.registers import Registers

__all__ = ["CODES", "CONSTANT", "NUM_INSTRUCTIONS", "Table", "lower_expression", "stack", "zeros"]

NUM_INSTRUCTIONS = 32
CONSTANT = -1
"""The value of b that selects the constant k."""

_NAMES = (
    "move", "add", "sub", "mul", "div", "min", "max", "abs", "tanh", "sqrt", "ge", "gt", "eq", "le", "lt", "choose",
)  # fmt: skip
CODES = {name: code for code, name in enumerate(_NAMES)}
"""Operation -> its code. `move` returns b; `choose` returns b where a is true, else c; the others use a and b."""

_COMMUTATIVE = frozenset({"add", "mul", "min", "max", "eq"})
_MIRRORED = {"ge": "le", "gt": "lt"}


class Table(NamedTuple):
    """A lowered program, or several stacked on a leading axis, in numpy or JAX arrays.

    op, a, b and c are int32[..., I], k is float32[..., I].
    """

    op: Any
    a: Any
    b: Any
    c: Any
    k: Any


def lower_expression(
    expression: Expression, layout: Registers, field: str, instructions: int = NUM_INSTRUCTIONS
) -> Table:
    """Return the table of an expression; errors name it `field`.

    Raises:
        ProgramError: the expression needs more instructions.
    """
    lowering = _Lowering(layout)
    result = lowering.place(expression)
    needed = max(1, len(lowering.lines))
    if needed > instructions:
        raise ProgramError(
            "too_large",
            field,
            f"it needs {needed} instructions; the maximum is {instructions}",
            "Use fewer operations.",
        )
    while len(lowering.lines) < instructions:
        lowering.emit("move", b=result)
    op, a, b, c, k = (np.array(column) for column in zip(*lowering.lines, strict=True))
    op, a, b, c = (column.astype(np.int32) for column in (op, a, b, c))
    return Table(op, a, b, c, k.astype(np.float32))


def stack(tables: Sequence[Table], num_steps: int | None = None) -> Table:
    """Return the tables of a plan's steps stacked to [S, I], padded to `num_steps` with the last one.

    Raises:
        InputError: there is no table, or there are more than `num_steps`.
    """
    num_steps = len(tables) if num_steps is None else num_steps
    if not 0 < len(tables) <= num_steps:
        raise InputError(
            "tables", f"{len(tables)} programs for {num_steps} steps", "Give each step one, and no more than there are."
        )
    padded = [*tables, *[tables[-1]] * (num_steps - len(tables))]
    return Table(*(np.stack(columns) for columns in zip(*padded, strict=True)))


def zeros(rows: int) -> Table:
    """Return stacked tables [rows, I] of programs that give 0 whatever they read."""
    codes = np.zeros((rows, NUM_INSTRUCTIONS), np.int32)
    return Table(codes, codes, codes + CONSTANT, codes, codes.astype(np.float32))


class _Lowering:
    """The instructions emitted so far; each distinct subexpression is computed once."""

    def __init__(self, layout: Registers) -> None:
        self.lines: list[tuple[int, int, int, int, float]] = []
        self._layout = layout
        self._places: dict[Expression, int] = {}

    def emit(self, name: str, *, a: int = 0, b: int = CONSTANT, c: int = 0, k: float = 0.0) -> int:
        """Append an instruction and return the slot of its result."""
        self.lines.append((CODES[name], a, b, c, k))
        return self._layout.size + len(self.lines) - 1

    def place(self, node: Expression) -> int:
        """Return the slot of a node's value in the register file; emit its instructions if needed."""
        if node not in self._places:
            self._places[node] = self._compute(node)
        return self._places[node]

    def _compute(self, node: Expression) -> int:
        match node.op:
            case "fluent":
                return self._layout.index(node.name)
            case "constant":
                return self.emit("move", k=node.value)
            case "not":
                return self.emit("eq", a=self.place(node.args[0]), k=0.0)
            case "abs" | "tanh" | "sqrt":
                return self.emit(node.op, a=self.place(node.args[0]))
            case "choose":
                return self._choose(*node.args)
            case "and":
                return self._two("min", *node.args)
            case "or":
                return self._two("max", *node.args)
        return self._two(node.op, *node.args)

    def _two(self, name: str, x: Expression, y: Expression) -> int:
        if x.op == "constant" and y.op != "constant":
            if name in _COMMUTATIVE:
                x, y = y, x
            elif name in _MIRRORED:
                name, x, y = _MIRRORED[name], y, x
        return self._with_b(name, a=self.place(x), y=y)

    def _choose(self, condition: Expression, yes: Expression, no: Expression) -> int:
        test = self.place(condition)
        if yes.op == no.op == "constant" and (yes.value, no.value) == (1.0, 0.0):
            return test  # truth values are 0 or 1 already
        return self._with_b("choose", a=test, y=yes, c=self.place(no))

    def _with_b(self, name: str, *, a: int, y: Expression, c: int = 0) -> int:
        if y.op == "constant":
            return self.emit(name, a=a, b=CONSTANT, c=c, k=y.value)
        return self.emit(name, a=a, b=self.place(y), c=c)
