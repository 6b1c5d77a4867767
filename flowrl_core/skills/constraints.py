"""The rules for every skill definition, from a knowledge file or a proposal.

Each function returns the first broken rule, or None.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from flowrl_core.nearest import remedy_for
from flowrl_core.programs.registers import COUNTS
from flowrl_core.skills.model import Linear
from flowrl_core.text import quoted
from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = [
    "PARTS", "Broken", "Part", "amount_rule", "ephemeral_rule", "gain_rule", "kind_rule", "known_rule",
    "learn_count_rule", "name_rule",
]  # fmt: skip

Part = Literal["gain", "requirements", "consumption"]
PARTS: tuple[Part, ...] = ("gain", "requirements", "consumption")

# A skill's name is used in directories, run names, tags and SKILL.FIELD=VALUE.
_NAME = re.compile(r"\w[\w-]*")
_NAME_BYTES = 64
# Totals, vitals, distances and levels change by themselves or are read-only, so plans cannot rely on them.
_KINDS: Mapping[Part, Collection[str]] = {
    "gain": ("count", "tier", "flag", "place"),
    "requirements": ("count", "tier", "flag", "place"),
    "consumption": ("count",),
}


@dataclass(frozen=True)
class Broken:
    """A frozen record of a broken rule.

    Attributes:
        code: short and stable.
        field: the offending field, such as `gain.inv.wood`.
        problem: what is wrong.
        remedy: what to do.
    """

    code: str
    field: str
    problem: str
    remedy: str


def name_rule(name: str) -> Broken | None:
    """A skill's name must be legal."""
    if _NAME.fullmatch(name) and len(name.encode()) <= _NAME_BYTES:
        return None
    remedy = f"Use at most {_NAME_BYTES} letters, digits, '_' and '-'"
    return Broken("illegal_name", "name", f"{quoted(name)} is not a valid skill name", remedy)


def learn_count_rule(learn_count: int) -> Broken | None:
    """The target count of a skill's own run must be in range."""
    if learn_count in COUNTS:
        return None
    problem = f"must be from {COUNTS[0]} to {COUNTS[-1]}, not {_number(learn_count)}"
    return Broken("learn_count", "learn_count", problem, "Correct the value")


def known_rule(field: str, value: object, known: Collection[str], code: str = "unknown") -> Broken | None:
    """A name must belong to a closed set; the remedy suggests the nearest ones."""
    if isinstance(value, str) and value in known:
        return None
    return Broken(code, field, f"{quoted(value)} is not known", remedy_for(str(value), known))


def kind_rule(part: Part, fluent: Fluent) -> Broken | None:
    """A fluent must be visible to the player, and of a kind that this part of the effects allows."""
    if fluent.is_hidden:
        problem = "the player cannot see it, so only rewards may read it"
        return Broken("hidden", f"{part}.{fluent.name}", problem, "Use a fluent that the player sees")
    if fluent.kind in _KINDS[part]:
        return None
    remedy = f"Use a fluent of kind {' or '.join(_KINDS[part])}"
    return Broken("wrong_kind", f"{part}.{fluent.name}", f"a {fluent.kind} is not allowed here", remedy)


def amount_rule(
    part: Part, fluent: Fluent, amount: Linear, vocab: Vocabulary, learn_count: int
) -> Broken | None:  # fmt: skip
    """Amounts must be non-negative, 0 or 1 for flags and places, within capacity."""
    where = f"{part}.{fluent.name}"
    amounts = [amount.at(n) for n in COUNTS]
    # A place required with amount 0 is not needed, but not left either.
    least = 0 if part == "requirements" and fluent.kind == "place" else 1
    if min(amounts) < 0 or max(amounts) < least:
        problem = f"can be as low as {_number(min(amounts))}"
        return Broken("amount", where, problem, f"Use amounts of {least} or more")
    if fluent.kind in ("flag", "place") and (amount.per_n or amount.fixed > 1):
        return Broken("wrong_units", where, "is a flag or place, so its amount must not depend on n", "Use 1")
    most = min(vocab.capacity, fluent.high)
    if amount.at(learn_count) > most:
        there = _number(amount.at(learn_count))
        problem = f"is {there} for n = {learn_count}, above the capacity of {most}"
        return Broken("over_capacity", where, problem, "Lower the amount or learn_count")
    return None


def gain_rule(gain: Mapping[str, Linear]) -> Broken | None:
    """A skill must gain something."""
    if gain:
        return None
    return Broken("no_gain", "gain", "is empty", 'State what the skill gains, such as gain = {"inv.wood" = "n"}')


def ephemeral_rule(gain: Mapping[str, Linear], ephemeral: bool, vocab: Vocabulary) -> Broken | None:
    """A skill must be ephemeral if and only if it gains a place."""
    places = {fluent.name for fluent in vocab.fluents if fluent.kind == "place"}
    brought = sorted(places & set(gain))
    if brought and not ephemeral:
        problem = f"must be true, since {brought[0]} is lost when another step moves on"
        return Broken("ephemeral", "ephemeral", problem, "Add ephemeral = true")
    if ephemeral and not brought:
        problem = "is true, but the skill gains no place"
        return Broken("ephemeral", "ephemeral", problem, "Remove it, or gain a near.* fluent")
    return None


def _number(value: int) -> str:
    """Return a whole number as text; Python cannot print integers of thousands of digits."""
    return str(value) if abs(value) < 10**9 else f"{'-' if value < 0 else ''}more than {10**9}"
