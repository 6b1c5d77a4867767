"""The parser: Python's `ast` parses the text, and only nodes of the program language are accepted.

No code is executed. Length, characters and nesting are limited before the text reaches Python's parser.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from flowrl_core.errors import ProgramError
from flowrl_core.nearest import remedy_for
from flowrl_core.programs import reference
from flowrl_core.programs.expressions import Expression, Kind, Op, interval_of
from flowrl_core.programs.registers import Interval, Register

__all__ = [
    "GRAMMAR",
    "MAX_CONSTANT",
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_MAGNITUDE",
    "MAX_NESTING",
    "MAX_TERMS",
    "MIN_CONSTANT",
    "parse",
]

MAX_LENGTH = 1000
"""Maximum characters of a program."""
MAX_NESTING = 32
"""Maximum nesting of parentheses."""
MAX_DEPTH = 64
"""Maximum levels of the expression tree, for instance terms of one sum."""
MAX_TERMS = 200
"""Maximum number of names, numbers and operations together."""
MAX_CONSTANT = 1e6
"""Maximum absolute value of a number in the text."""
MIN_CONSTANT = 1e-6
"""Minimum absolute value of a number in the text, apart from 0."""
MAX_MAGNITUDE = 1e9
"""Maximum absolute value that any part of a program may reach."""

_FOREIGN = re.compile(r"[^A-Za-z0-9_ .,+\-*/<>=!()]")
# Only decimal numbers are accepted; Python would print a warning about a word right after a number.
_NUMERAL = re.compile(r"(?<![\w.])\.?\d(?:[eE][+-]|[\w.])*", re.ASCII)
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
GRAMMAR = "Use numbers, fluents, + - * /, comparisons, and or not, `a if c else b`, and min max abs clip tanh sqrt"
"""The language in one line, for remedies and prompts."""
_ARITHMETIC: dict[type[ast.operator], Op] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
# Operation, whether the operands are swapped, whether the result is negated.
_COMPARISONS: dict[type[ast.cmpop], tuple[Op, bool, bool]] = {
    ast.GtE: ("ge", False, False),
    ast.Gt: ("gt", False, False),
    ast.LtE: ("ge", True, False),
    ast.Lt: ("gt", True, False),
    ast.Eq: ("eq", False, False),
    ast.NotEq: ("eq", False, True),
}
_FUNCTIONS: dict[str, tuple[int, int]] = {
    "min": (2, 9), "max": (2, 9), "abs": (1, 1), "clip": (3, 3), "tanh": (1, 1), "sqrt": (1, 1),
}  # fmt: skip


def parse(text: str, field: str, slots: Mapping[str, Register]) -> tuple[str, Expression]:
    """Return the text in canonical spelling, and its expression with kinds and intervals.

    Args:
        text: the program.
        field: its name in errors.
        slots: the names it may read.

    Raises:
        ProgramError: the text is not an expression of the language, or evaluating a part of it could fail.
    """
    line = _one_line(text, field)
    for numeral in _NUMERAL.findall(line):
        if not _NUMBER.fullmatch(numeral):
            raise ProgramError(
                "syntax",
                field,
                f"`{numeral[:60]}` is not a number",
                "Write numbers as 12, 0.5 or 1e-3, followed by a space.",
            )
    try:
        body = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as exc:
        raise ProgramError(
            "syntax",
            field,
            f"this is not one expression: {getattr(exc, 'msg', None) or exc}",
            "Write a single expression such as `inv.wood >= n`, without statements, prose or markdown around it.",
        ) from exc
    _limit_size(body, field)
    expression = _Reader(field, slots).read(body)
    return ast.unparse(body), expression


def _one_line(text: object, field: str) -> str:
    if not isinstance(text, str):
        raise ProgramError("not_text", field, f"a program is text, not {type(text).__name__}", "Put it in quotes.")
    if len(text) > MAX_LENGTH:
        raise ProgramError(
            "too_long", field, f"{len(text)} characters are too many", f"Use at most {MAX_LENGTH} characters."
        )
    line = re.sub(r"[ \t\r\n]+", " ", text).strip(" ")
    if not line:
        raise ProgramError("empty", field, "there is no expression", "Write one, such as `inv.wood >= n`.")
    if not line.isascii():
        foreign = next(c for c in line if not c.isascii())
        raise ProgramError("not_ascii", field, f"{ascii(foreign)} is not ASCII", "Retype it with plain ASCII letters.")
    if found := _FOREIGN.search(line):
        raise ProgramError(
            "character", field, f"{found[0]!r} at position {found.start() + 1} is not allowed here", f"{GRAMMAR}."
        )
    depth = deepest = 0
    for c in line:
        depth += (c == "(") - (c == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        _too_deep(field, f"{deepest} nested parentheses")
    return line


def _limit_size(body: ast.expr, field: str) -> None:
    level: list[ast.AST] = [body]
    depth = terms = 0
    while level:
        depth += 1
        terms += len(level)
        if depth > MAX_DEPTH:
            _too_deep(field, f"more than {MAX_DEPTH} nested operations")
        if terms > MAX_TERMS:
            raise ProgramError(
                "too_large", field, f"more than {MAX_TERMS} terms", "Use fewer names, numbers and operations."
            )
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]


def _too_deep(field: str, problem: str) -> NoReturn:
    raise ProgramError("too_deep", field, problem, "Use fewer levels.")


class _Reader:
    """A reader of one program. Equal subexpressions become one node, so nodes can be compared by identity."""

    def __init__(self, field: str, slots: Mapping[str, Register]) -> None:
        self._field = field
        self._slots = slots
        self._nodes: dict[tuple[object, ...], Expression] = {}

    def read(self, node: ast.expr) -> Expression:
        match node:
            case ast.Constant():
                return self._number(node)
            case ast.Name() | ast.Attribute():
                return self._fluent(node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._apply(node, "mul", self._of_kind("number", operand), self._constant(-1.0))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._apply(node, "not", self._of_kind("truth", operand))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
                x, y = self._of_kind("number", left), self._of_kind("number", right)
                return self._apply(node, _ARITHMETIC[type(op)], x, y)
            case ast.BoolOp(op=logic, values=values):
                name: Op = "and" if isinstance(logic, ast.And) else "or"
                return self._fold(node, name, [self._of_kind("truth", v) for v in values])
            case ast.Compare():
                return self._compare(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._choose(node, test, body, orelse)
            case ast.Call():
                return self._call(node)
        self._refuse("not_allowed", f"`{_show(node)}` is not part of the language", f"{GRAMMAR}.")

    def _number(self, node: ast.Constant) -> Expression:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._refuse("not_allowed", f"`{_show(node)}` is not a number", f"{GRAMMAR}.")
        if value != 0 and not MIN_CONSTANT <= abs(value) <= MAX_CONSTANT:
            self._refuse(
                "constant_range",
                f"the number {_show(node)} is too large or too close to zero",
                f"Use 0 or a number from {MIN_CONSTANT:g} to {MAX_CONSTANT:g}.",
            )
        return self._constant(float(value))

    def _fluent(self, node: ast.expr) -> Expression:
        name = _show(node, limit=10 * MAX_LENGTH)
        if not all(
            isinstance(part, (ast.Name, ast.Attribute)) for part in ast.walk(node) if isinstance(part, ast.expr)
        ):
            self._refuse("not_allowed", f"`{_show(node)}` is not part of the language", f"{GRAMMAR}.")
        if name not in self._slots:
            remedy = remedy_for(name, self._slots, otherwise="`flowrl env fluents` lists all names.")
            self._refuse("unknown_name", f"there is no fluent `{_show(node)}`", remedy)
        slot = self._slots[name]
        return self._node("fluent", "truth" if slot.is_truth else "number", slot.interval, name=name)

    def _compare(self, node: ast.Compare) -> Expression:
        values = [self._of_kind("number", v) for v in (node.left, *node.comparators)]
        links = []
        for op, x, y in zip(node.ops, values, values[1:], strict=False):
            if type(op) not in _COMPARISONS:
                self._refuse("not_allowed", f"`{_show(node)}` is not part of the language", f"{GRAMMAR}.")
            name, is_swapped, is_negated = _COMPARISONS[type(op)]
            link = self._apply(node, name, *((y, x) if is_swapped else (x, y)))
            links.append(self._apply(node, "not", link) if is_negated else link)
        return self._fold(node, "and", links)

    def _choose(self, node: ast.expr, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Expression:
        condition = self._of_kind("truth", test)
        yes = self.read(body)
        return self._apply(node, "choose", condition, yes, self._of_kind(yes.kind, orelse))

    def _call(self, node: ast.Call) -> Expression:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            self._refuse("unknown_function", f"there is no function `{_show(node.func)}`", f"{GRAMMAR}.")
        fewest, most = _FUNCTIONS[name]
        is_plain = not node.keywords and not any(isinstance(a, ast.Starred) for a in node.args)
        if not is_plain or not fewest <= len(node.args) <= most:
            number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            self._refuse("arguments", f"`{_show(node)}` does not fit {name}", f"Give {name} {number} plain arguments.")
        args = [self._of_kind("number", a) for a in node.args]
        match name:
            case "min" | "max":
                return self._fold(node, "min" if name == "min" else "max", args)
            case "clip":
                return self._clip(node, *args)
            case "abs":
                return self._apply(node, "abs", *args)
            case "tanh":
                return self._apply(node, "tanh", *args)
        if args[0].interval[0] < 0:
            self._refuse(
                "square_root",
                f"`{_show(node.args[0])}` can be {args[0].interval[0]:g}, which has no root",
                f"Write sqrt(max({_show(node.args[0])}, 0)).",
            )
        return self._apply(node, "sqrt", *args)

    def _clip(self, node: ast.expr, x: Expression, low: Expression, high: Expression) -> Expression:
        if low.interval[0] > high.interval[1]:
            self._refuse(
                "clip_bounds", f"the bounds of `{_show(node)}` are in the wrong order", "Give the lower bound first."
            )
        # With this order, the upper bound wins if the bounds cross, both here and in the tables.
        return self._apply(node, "min", self._apply(node, "max", x, low), high)

    def _of_kind(self, kind: Kind, node: ast.expr) -> Expression:
        expression = self.read(node)
        if expression.kind != kind:
            shown = _show(node)
            if kind == "number":
                self._refuse(
                    "wrong_kind",
                    f"`{shown}` is a truth value where a number is needed",
                    f"Write (1 if {shown} else 0).",
                )
            self._refuse(
                "wrong_kind", f"`{shown}` is a number where a truth value is needed", f"Compare it: {shown} >= 1."
            )
        return expression

    def _fold(self, node: ast.expr, op: Op, values: Sequence[Expression]) -> Expression:
        result = values[0]
        for value in values[1:]:
            result = self._apply(node, op, result, value)
        return result

    def _apply(self, node: ast.expr, op: Op, *args: Expression) -> Expression:
        if op == "div" and args[1].interval[0] <= 0 <= args[1].interval[1]:
            divisor = _show(node.right) if isinstance(node, ast.BinOp) else "the divisor"
            self._refuse(
                "division",
                f"`{divisor}` can be 0: its range is {_range(args[1].interval)}",
                f"Keep it away from 0, for instance by max({divisor}, 1).",
            )
        interval = interval_of(op, [a.interval for a in args], is_same=len(args) == 2 and args[0] is args[1])
        if max(abs(end) for end in interval) > MAX_MAGNITUDE:
            self._refuse(
                "magnitude",
                f"`{_show(node)}` has the range {_range(interval)}",
                f"Keep every part within +-{MAX_MAGNITUDE:g}, for instance by clip.",
            )
        kind: Kind = "truth" if op in ("ge", "gt", "eq", "and", "or", "not") else "number"
        if op == "choose":
            kind = args[1].kind
        if kind == "number" and all(a.op == "constant" for a in args):
            return self._constant(float(reference.apply(op, *(reference.single(a.value) for a in args))))
        return self._node(op, kind, interval, args)

    def _constant(self, value: float) -> Expression:
        value = float(reference.single(value))
        return self._node("constant", "number", (value, value), value=value)

    def _node(
        self,
        op: Op,
        kind: Kind,
        interval: Interval,
        args: tuple[Expression, ...] = (),
        *,
        value: float = 0.0,
        name: str = "",
    ) -> Expression:
        key = (op, args, value, name)
        if key not in self._nodes:
            self._nodes[key] = Expression(op, kind, interval, args, value, name)
        return self._nodes[key]

    def _refuse(self, code: str, problem: str, remedy: str) -> NoReturn:
        raise ProgramError(code, self._field, problem, remedy)


def _show(node: ast.AST, limit: int = 60) -> str:
    text = ast.unparse(node)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _range(interval: Interval) -> str:
    return f"[{interval[0]:g}, {interval[1]:g}]"
