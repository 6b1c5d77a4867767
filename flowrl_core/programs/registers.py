"""The register file: the row of numbers that a program reads at one moment, and their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["COUNTS", "Interval", "Registers", "Register", "fill", "registers_of"]

COUNTS: Final = range(1, 10)
"""The target counts n that a plan step may have."""

Interval = tuple[float, float]

# In a new world, fluents of these kinds are at their minimum.
_EMPTY_AT_START = frozenset({"count", "tier", "flag"})


@dataclass(frozen=True)
class Register:
    """A frozen record of where a name is read and its range.

    Attributes:
        index: index in the register row.
        is_truth: whether it is a truth value (0 or 1) rather than a number.
        interval: closed range of its values, which are whole numbers.
        at_start: range in a new world, before anything has changed.
    """

    index: int
    is_truth: bool
    interval: Interval
    at_start: Interval


class Registers:
    """The layout of a register row over F base fluents: `[now (F) | delta (F) | since (F) | n]`, R = 3 F + 1 numbers.

    `delta` is the change in the last step and `since` the change since the plan step began. For a distance, delta is
    the distance before minus the distance now (positive if closer). For a flag it is 1 only if the flag was raised.

    Attributes:
        vocabulary: the base fluents.
        slots: name -> Register, for every name a program may use.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.slots: Mapping[str, Register] = MappingProxyType(dict(_named_slots(vocabulary)))
        fluents = vocabulary.fluents
        self.low = np.array([f.low for f in fluents], np.float32)
        self.high = np.array([f.high for f in fluents], np.float32)
        self.delta_sign = np.array([-1 if f.kind == "distance" else 1 for f in fluents], np.float32)
        self.delta_low = np.array([0 if f.kind == "flag" else f.low - f.high for f in fluents], np.float32)

    @property
    def num_fluents(self) -> int:
        """The number F of base fluents."""
        return len(self.vocabulary.fluents)

    @property
    def size(self) -> int:
        """The length R of a register row."""
        return 3 * self.num_fluents + 1

    def index(self, name: str) -> int:
        """Return the index in the register row of a name that a program may use.

        Raises:
            KeyError: programs may not use this name.
        """
        return self.slots[name].index


@lru_cache(maxsize=32)
def registers_of(vocabulary: Vocabulary) -> Registers:
    """Return the cached layout for a vocabulary."""
    return Registers(vocabulary)


def fill(xp: Any, now: Any, prev: Any, start: Any, n: Any, layout: Registers) -> Any:
    """Return the register rows f32[..., R] of one moment.

    Values are clipped to the ranges of the vocabulary, so that proofs about a program hold whatever an adapter reads.

    Args:
        xp: `numpy` or `jax.numpy`.
        now: base fluents now, [..., F].
        prev: base fluents before the last environment step, [..., F].
        start: base fluents when the plan step began, [..., F].
        n: target count of the plan step, [...].
        layout: the layout to fill.
    """

    def held(values: Any) -> Any:
        return xp.clip(xp.asarray(values, xp.float32), layout.low, layout.high)

    now, prev, start = held(now), held(prev), held(start)
    delta = xp.maximum((now - prev) * layout.delta_sign, layout.delta_low)
    count = xp.clip(xp.asarray(n, xp.float32), COUNTS[0], COUNTS[-1])
    return xp.concatenate([now, delta, now - start, count[..., None]], axis=-1)


def _named_slots(vocabulary: Vocabulary) -> Iterator[tuple[str, Register]]:
    num = len(vocabulary.fluents)
    for i, fluent in enumerate(vocabulary.fluents):
        own = (float(fluent.low), float(fluent.high))
        is_truth = fluent.kind in ("flag", "place")
        yield fluent.name, Register(i, is_truth, own, (own[0], own[0]) if fluent.kind in _EMPTY_AT_START else own)
        signed = (own[0] - own[1], own[1] - own[0])
        delta = Register(num + i, False, signed, (0.0, 0.0))
        prefix, _, rest = fluent.name.partition(".")
        if prefix == "inv":
            yield f"gained.{rest}", delta
            yield f"since.{rest}", Register(2 * num + i, False, signed, (0.0, 0.0))
        elif prefix == "ach":
            yield f"new_ach.{rest}", Register(num + i, True, (0.0, 1.0), (0.0, 0.0))
        elif prefix == "dist":
            yield f"closer.{rest}", delta
        elif fluent.kind == "vital":
            yield f"d.{fluent.name}", delta
    counts = (float(COUNTS[0]), float(COUNTS[-1]))
    yield "n", Register(3 * num, False, counts, counts)
