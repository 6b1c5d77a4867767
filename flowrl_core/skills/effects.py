"""Amounts of the form `a*n + b`, parsed without evaluating any code."""

from __future__ import annotations

import re

from flowrl_core.skills.model import Linear

__all__ = ["as_text", "parse_amount"]

_TERM = re.compile(r"\s*([+-]?)\s*(?:(\d{1,4})(?:\s*\*\s*(n))?|(n)(?:\s*\*\s*(\d{1,4}))?)\s*", re.ASCII)


def parse_amount(amount: float | str) -> Linear:
    """Return the amount given by a whole number or a text such as `n`, `3`, `2*n` or `2*n + 1`.

    Raises:
        ValueError: another form; the message says what is allowed.
    """
    if isinstance(amount, float) and amount.is_integer():  # 2e0, which TOML reads as a float
        amount = int(amount)
    if isinstance(amount, int) and not isinstance(amount, bool):
        return Linear(0, amount)
    if not isinstance(amount, str):
        raise ValueError(f"an amount must be a whole number or a text such as '2*n + 1', not {amount!r}")
    per_n = fixed = place = 0
    while place < len(amount) or place == 0:
        term = _TERM.match(amount, place)
        if term is None or (place > 0 and not term[1]):
            raise ValueError(f"{amount!r} is not of the form 'a*n + b'")
        sign = -1 if term[1] == "-" else 1
        size = sign * int(term[2] or term[5] or 1)
        if term[3] or term[4]:
            per_n += size
        else:
            fixed += size
        place = term.end()
    return Linear(per_n, fixed)


def as_text(amount: Linear) -> str:
    """Return the amount as text; `parse_amount` is the inverse."""
    if amount.per_n == 0:
        return str(amount.fixed)
    times = "n" if amount.per_n == 1 else f"{amount.per_n}*n"
    return f"{times} {'-' if amount.fixed < 0 else '+'} {abs(amount.fixed)}" if amount.fixed else times
