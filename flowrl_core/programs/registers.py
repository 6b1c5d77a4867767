"""The register file: the row of numbers that a program reads at one moment, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["COUNTS", "Interval", "Registers", "Register", "change_name", "fill", "registers_of"]

COUNTS: Final = range(1, 10)
"""The target counts n that a plan step may have."""

Interval = tuple[float, float]

# In a new world, fluents of these kinds are at their minimum.
_EMPTY_AT_START = frozenset({"count", "total", "tier", "flag"})


@dataclass(frozen=True)
class Register:
    """A frozen record of where a name is read and its range.

    Attributes:
        index: index in the register row.
        is_truth: whether it is a truth value (0 or 1) rather than a number.
        interval: closed range of its values, which are whole numbers.
        at_start: range in a new world, before anything has changed.
        fluent: the base fluent that it tells of; None for `n`.
    """

    index: int
    is_truth: bool
    interval: Interval
    at_start: Interval
    fluent: Fluent | None


class Registers:
    """The layout of a register row over F base fluents: `[now (F) | delta (F) | since (F) | n]`, R = 3 F + 1 numbers.

    `delta` is the change in the last step and `since` the change since the plan step began. For a distance, delta is
    the distance before minus the distance now (positive if closer). For a flag it is 1 only if the flag was raised.
    Neither is negative for a total, which never falls.

    Attributes:
        vocabulary: the base fluents.
        slots: name -> Register, for every name a program may use.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.slots: Mapping[str, Register] = MappingProxyType(_named_slots(vocabulary))
        fluents = vocabulary.fluents
        self.low = np.array([f.low for f in fluents], np.float32)
        self.high = np.array([f.high for f in fluents], np.float32)
        self.delta_sign = np.array([-1 if f.kind == "distance" else 1 for f in fluents], np.float32)
        self.delta_low, self.delta_high = np.array([_delta_range(f) for f in fluents], np.float32).T
        self.since_low = np.array([_since_range(f)[0] for f in fluents], np.float32)

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

    def told(self, names: Iterable[str]) -> tuple[Fluent, ...]:
        """Return the base fluents that these names tell of, each once; `n` tells of none."""
        found = (self.slots[name].fluent for name in names)
        return tuple(dict.fromkeys(fluent for fluent in found if fluent is not None))


@lru_cache(maxsize=32)
def registers_of(vocabulary: Vocabulary) -> Registers:
    """Return the cached layout for a vocabulary."""
    return Registers(vocabulary)


def change_name(prefix: Literal["gained", "since"], fluent: str) -> str:
    """Return the name of a count's change: `gained.wood` for `inv.wood`, but `gained.dealt.cow` for `dealt.cow`."""
    return f"{prefix}.{fluent.removeprefix('inv.')}"


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
    delta = xp.clip((now - prev) * layout.delta_sign, layout.delta_low, layout.delta_high)
    since = xp.maximum(now - start, layout.since_low)
    count = xp.clip(xp.asarray(n, xp.float32), COUNTS[0], COUNTS[-1])
    return xp.concatenate([now, delta, since, count[..., None]], axis=-1)


def _named_slots(vocabulary: Vocabulary) -> dict[str, Register]:
    found: dict[str, Register] = {}
    num = len(vocabulary.fluents)
    for i, fluent in enumerate(vocabulary.fluents):
        for name, register in _slots_of(fluent, i, num):
            if name in found:
                raise ValueError(f"{vocabulary.env}: {name} names two things; rename {fluent.name}")
            found[name] = register
    counts = (float(COUNTS[0]), float(COUNTS[-1]))
    return {**found, "n": Register(3 * num, False, counts, counts, None)}


def _slots_of(fluent: Fluent, i: int, num: int) -> Iterator[tuple[str, Register]]:
    """Yield the names that tell of the i-th of `num` base fluents."""
    own = (float(fluent.low), float(fluent.high))
    is_truth = fluent.kind in ("flag", "place")
    at_start = (own[0], own[0]) if fluent.kind in _EMPTY_AT_START else own
    yield fluent.name, Register(i, is_truth, own, at_start, fluent)
    delta = Register(num + i, False, _delta_range(fluent), (0.0, 0.0), fluent)
    prefix, _, rest = fluent.name.partition(".")
    if prefix == "inv" or fluent.kind in ("count", "total"):
        yield change_name("gained", fluent.name), delta
        yield change_name("since", fluent.name), Register(2 * num + i, False, _since_range(fluent), (0.0, 0.0), fluent)
    elif prefix == "ach":
        yield f"new_ach.{rest}", Register(num + i, True, (0.0, 1.0), (0.0, 0.0), fluent)
    elif prefix == "dist":
        yield f"closer.{rest}", delta
    elif fluent.kind == "vital":
        yield f"d.{fluent.name}", delta


def _delta_range(fluent: Fluent) -> Interval:
    """Return the range of the change in one environment step."""
    width = float(fluent.high - fluent.low)
    rise = width if fluent.most_gained is None else min(width, float(fluent.most_gained))
    return (0.0 if fluent.kind in ("flag", "total") else -width), rise


def _since_range(fluent: Fluent) -> Interval:
    """Return the range of the change since the plan step began."""
    width = float(fluent.high - fluent.low)
    return (0.0 if fluent.kind == "total" else -width), width
