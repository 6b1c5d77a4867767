"""Splits a reward into its addends, each a program of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from flowrl_core.errors import ProgramError
from flowrl_core.programs.parsing import parse
from flowrl_core.programs.registers import registers_of
from flowrl_core.programs.tables import Table, lower_expression
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["addends", "lower_term"]


def addends(reward: str) -> tuple[str, ...]:
    """Return the texts of a reward's top-level addends, in order; a subtracted one has a minus.

    Args:
        reward: a proven program, in any spelling.
    """
    body = ast.parse(" ".join(reward.split()), mode="eval").body
    return tuple(ast.unparse(node) for node in _split(body, is_negative=False))


def lower_term(text: str, vocab: Vocabulary) -> Table | None:
    """Return the table of a term; None if it cannot be lowered alone. It may be constant or never positive."""
    layout = registers_of(vocab)
    try:
        return lower_expression(parse(text, "reward", layout.slots)[1], layout, "reward")
    except ProgramError:
        return None


def _split(node: ast.expr, *, is_negative: bool) -> Iterator[ast.expr]:
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            yield from _split(left, is_negative=is_negative)
            yield from _split(right, is_negative=is_negative != isinstance(op, ast.Sub))
        case _:
            yield ast.UnaryOp(ast.USub(), node) if is_negative else node
