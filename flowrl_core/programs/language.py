"""The program language: done and reward as expressions over fluents, proven before anything runs them.

    inv.wood >= n                                   a done: a truth value
    gained.wood + 0.1 * d.health                    a reward: a number
    (1 if near.crafting_table else 0) - 0.01        truth values and numbers are never converted implicitly

Numbers, fluents, `+ - * /`, unary minus, comparisons (chained too), `and or not`, `a if c else b`, and the functions
`min max abs clip tanh sqrt`. Nothing else is accepted, and no code is executed. Both branches of an `if` are computed,
so a division must be safe regardless of its condition.

Every refusal has one of these codes:

    not_text empty too_long not_ascii character too_deep syntax too_large     the text
    not_allowed unknown_name unknown_function arguments wrong_kind            its syntax tree
    constant_range division square_root clip_bounds magnitude                 its possible values
    hidden                                                                    a condition of what the player cannot see
    always_true never_true true_at_start                                      an uninformative done
    constant never_positive reward_range                                      an unusable reward
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flowrl_core.errors import ProgramError
from flowrl_core.programs.expressions import Expression, bounds, fluents
from flowrl_core.programs.parsing import parse
from flowrl_core.programs.reference import every_value
from flowrl_core.programs.registers import COUNTS, Interval, Registers, registers_of
from flowrl_core.programs.tables import NUM_INSTRUCTIONS, Table, lower_expression
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["MAX_REWARD", "Checked", "ProgramKind", "check_condition", "check_done", "check_reward", "lower"]

ProgramKind = Literal["done", "reward", "condition"]

MAX_REWARD = 1e4
"""Maximum absolute reward of one environment step."""

# Up to this number of value combinations of the names read, all are evaluated: an exact proof in milliseconds.
_MOST_COMBINATIONS = 50_000


@dataclass(frozen=True)
class Checked:
    """A frozen record of a proven program.

    Attributes:
        text: the program in canonical spelling.
        kind: `done` or `condition` (a truth value, 0 or 1), or `reward` (a number).
        expression: the tree that `lower` and `reference.evaluate` read.
        interval: closed range that contains every value it can take.
        fluents: the names it reads, sorted.
    """

    text: str
    kind: ProgramKind
    expression: Expression = field(compare=False, repr=False)
    interval: Interval
    fluents: tuple[str, ...]


def check_done(text: str, vocab: Vocabulary) -> Checked:
    """Return the proven done condition: finite, neither always nor never true, not yet true in every new world.

    It reads only what the player can see: hidden fluents may stand in rewards alone.

    Args:
        text: an expression of a truth value.
        vocab: the fluents it may read.

    Raises:
        ProgramError: the program is rejected; `code` says why and `remedy` what to do.
    """
    checked = _checked_truth(text, vocab, "done", "Make it depend on what the skill must change.")
    if (n := _true_at_start(checked, registers_of(vocab))) is not None:
        raise ProgramError(
            "true_at_start",
            "done",
            f"with n = {n} it is already true in every new world",
            "Require a change, such as `since.X >= n`, or something that a new world does not have.",
        )
    return checked


def check_condition(text: str, vocab: Vocabulary) -> Checked:
    """Return the proven condition of a guard: finite, neither always nor never true.

    Raises:
        ProgramError: as `check_done`.
    """
    return _checked_truth(text, vocab, "condition", "Make it depend on what the guard reacts to.")


def check_reward(text: str, vocab: Vocabulary) -> Checked:
    """Return the proven reward: finite, within +-1e4, not constant and sometimes positive.

    Args:
        text: an expression of a number.
        vocab: the fluents it may read.

    Raises:
        ProgramError: the program is rejected; `code` says why and `remedy` what to do.
    """
    checked, ranges = _check(text, vocab, "reward")
    low, high = checked.interval
    if max(abs(low), abs(high)) > MAX_REWARD:
        raise ProgramError(
            "reward_range",
            "reward",
            f"its range [{low:g}, {high:g}] is too wide",
            f"Keep it within +-{MAX_REWARD:g}: use smaller factors, clip or tanh.",
        )
    low, high = _extremes(checked.expression, checked.interval, ranges)
    if low == high:
        raise ProgramError(
            "constant", "reward", f"it is always {low:g}", "Make it depend on what the skill must change."
        )
    if high <= 0:
        raise ProgramError("never_positive", "reward", f"it is at most {high:g}", "Reward the skill's gain.")
    return checked


def lower(checked: Checked, vocab: Vocabulary, instructions: int = NUM_INSTRUCTIONS) -> Table:
    """Return the table of a proven program, padded to `instructions`; the last instruction gives the result.

    Raises:
        ProgramError: the program needs more instructions.
    """
    return lower_expression(checked.expression, registers_of(vocab), checked.kind, instructions)


def _checked_truth(text: str, vocab: Vocabulary, kind: ProgramKind, remedy: str) -> Checked:
    """Return the proven truth value, which takes both values and reads only what the player can see.

    Raises:
        ProgramError: it reads a hidden fluent, or is always or never true; the remedy for always is given.
    """
    checked, ranges = _check(text, vocab, kind)
    if hidden := [fluent.name for fluent in registers_of(vocab).told(checked.fluents) if fluent.is_hidden]:
        raise ProgramError(
            "hidden",
            kind,
            f"the player cannot see {hidden[0]}, so only rewards may read it",
            "Compare what the player sees, such as `ach.X` or `since.X >= n`.",
        )
    low, high = _extremes(checked.expression, checked.interval, ranges)
    if low == 1:
        raise ProgramError("always_true", kind, "it is always true", remedy)
    if high == 0:
        raise ProgramError("never_true", kind, "it can never be true", "Compare within the ranges of the fluents.")
    return checked


def _check(text: str, vocab: Vocabulary, kind: ProgramKind) -> tuple[Checked, dict[str, Interval]]:
    layout = registers_of(vocab)
    spelling, expression = parse(text, kind, layout.slots)
    if kind != "reward" and expression.kind != "truth":
        raise ProgramError("wrong_kind", kind, f"`{spelling}` is a number", f"Compare it, such as `{spelling} >= 1`.")
    if kind == "reward" and expression.kind != "number":
        raise ProgramError(
            "wrong_kind", kind, f"`{spelling}` is a truth value", f"Give it a number, such as `1 if {spelling} else 0`."
        )
    lower_expression(expression, layout, kind)
    names = fluents(expression)
    ranges = {name: layout.slots[name].interval for name in names}
    return Checked(spelling, kind, expression, expression.interval, names), ranges


def _extremes(expression: Expression, interval: Interval, ranges: Mapping[str, Interval]) -> Interval:
    """Return the exact extremes if all combinations of fluent values can be evaluated, else the proven interval."""
    values = every_value(expression, ranges, limit=_MOST_COMBINATIONS)
    return interval if values is None else (float(values.min()), float(values.max()))


def _true_at_start(checked: Checked, layout: Registers) -> int | None:
    """Return the smallest n for which done is provably true in every new world; None if there is none."""
    starts = {name: layout.slots[name].at_start for name in checked.fluents if name != "n"}
    for n in COUNTS:
        ranges = {**starts, "n": (float(n), float(n))}
        if bounds(checked.expression, ranges)[0] == 1:
            return n
    values = every_value(
        checked.expression, {**starts, "n": (float(COUNTS[0]), float(COUNTS[-1]))}, limit=_MOST_COMBINATIONS
    )
    if values is None:
        return None
    always = np.broadcast_to(values, (*values.shape[:-1], len(COUNTS))).reshape(-1, len(COUNTS)).min(axis=0) == 1
    return COUNTS[int(always.argmax())] if always.any() else None
