"""Requested values of a state's fluents, checked against the vocabulary. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping

from flowrl_core.errors import InputError
from flowrl_core.nearest import remedy_for
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["cannot_be", "wanted_values"]


def wanted_values(vocab: Vocabulary, values: Mapping[str, float]) -> dict[str, int]:
    """Return the values as whole numbers, by base fluent, in the vocabulary's order.

    Raises:
        InputError: a name is no base fluent of the environment, or a value is no whole number of the fluent's range.
    """
    ranges = {fluent.name: (fluent.low, fluent.high) for fluent in vocab.fluents}
    for name, value in values.items():
        if name not in ranges:
            raise InputError(name, f"{vocab.env} has no base fluent of this name", remedy_for(name, ranges))
        low, high = ranges[name]
        if not (low <= value <= high and value == int(value)):
            raise InputError(name, f"cannot be {value}", f"Give a whole number from {low} to {high}")
    return {name: int(values[name]) for name in ranges if name in values}


def cannot_be(name: str, value: int, reason: str) -> InputError:
    """Return the error for a fluent that cannot have this value in the given state."""
    return InputError(name, f"cannot be {value} here: {reason}", "Give another value, or leave this fluent out")
