"""The addends of a reward, each as a program of its own."""

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
    """The texts of what a reward adds up at its top, in order; one that is subtracted has a minus.

    Args:
        reward: a program that was proven, in any spelling.
    """
    body = ast.parse(" ".join(reward.split()), mode="eval").body
    return tuple(ast.unparse(node) for node in _split(body, is_negative=False))


def lower_term(text: str, vocab: Vocabulary) -> Table | None:
    """The table of a term; None where it cannot be lowered alone. It may be constant or never positive."""
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
