"""Synthetic transitions for a skill: standing still, cycles, and gains of something else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from flowrl_core.proposals.program_checks import ProgramChecks
from flowrl_core.proposals.recorded_transitions import RecordedTransitions
from flowrl_core.vocabulary.model import Fluent

__all__ = ["cycles", "idle_moments", "other_gains"]

_MOST_COMBINATIONS = 4096

# Cycles of a vital, as offsets from its maximum: slow loss and quick gain, quick loss and slow gain.
_VITAL_CYCLES = ((0, -1, 0), (0, -1, -2, -3, -4, -5, -6, 0), (0, -2, -1, 0))
_COUNT_CYCLES = ((0, 1, 0), (0, 1, 2, 0))


def idle_moments(checks: ProgramChecks) -> np.ndarray:
    """Return the registers f32[R, K] of standing still, for every combination of values that the reward reads.

    The step began as planned. If there are too many combinations, one fluent at a time differs from the entry.
    """
    ranges = {fluent.name: range(fluent.low, fluent.high + 1) for fluent in checks.read}
    rows = []
    if math.prod(len(values) for values in ranges.values()) <= _MOST_COMBINATIONS:
        for values in itertools.product(*ranges.values()):
            rows.append(_put(checks, dict(zip(ranges, values, strict=True))))
    else:
        rows = [_put(checks, {name: value}) for name, values in ranges.items() for value in values]
    now = np.stack(rows)
    return checks.recorded.registers(now, now, np.broadcast_to(checks.at_entry, now.shape))


def cycles(checks: ProgramChecks, kinds: Collection[str]) -> Iterator[tuple[Fluent, list[np.ndarray]]]:
    """Yield cycles of each fluent that the reward reads, as the fluent and its states f32[F].

    Each starts from the step's entry, and again with all flags and places set that the reward reads.
    """
    lit = {fluent.name: 1 for fluent in checks.read if fluent.kind in ("flag", "place")}
    bases = [checks.at_entry, checks.changed(checks.at_entry, lit)] if lit else [checks.at_entry]
    for base in bases:
        for fluent in checks.read:
            if fluent.kind in kinds:
                for values in _values(checks.recorded, fluent, int(base[checks.index[fluent.name]])):
                    yield fluent, [checks.changed(base, {fluent.name: value}) for value in values]


def other_gains(checks: ProgramChecks) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield gains of other fluents than the skill's: the fluent, and states f32[F], of which each is a step later.

    A count, vital, flag or place rises once; a total by as much as it can in one step, at once and point by point.
    """
    own = {*checks.skill.gain, *_companions(checks)}
    own |= {f"dist.{name.removeprefix('near.')}" for name in own if name.startswith("near.")}
    for fluent in checks.read:
        if fluent.name in own:
            continue
        name, low, high = fluent.name, fluent.low, fluent.high
        have = int(checks.at_entry[checks.index[name]])
        if fluent.kind == "distance":
            far = min(4, high)
            change = (far, far - 1)
        elif fluent.kind == "vital":
            change = (high - 1, high)
        elif fluent.kind == "count":
            change = (min(have, high - 1), min(have, high - 1) + 1)
        else:
            change = (low, high) if fluent.kind != "total" else (have, min(have + (fluent.most_gained or 1), high))
        yield name, [checks.changed(checks.at_entry, {name: value}) for value in change]
        if fluent.kind == "total":
            points = range(change[0], change[1] + 1)
            yield name, [checks.changed(checks.at_entry, {name: value}) for value in points]


def _put(checks: ProgramChecks, values: Mapping[str, int]) -> np.ndarray:
    """Return the entry with exactly these values, even if a place is then both near and far."""
    row = checks.at_entry.copy()
    for name, value in values.items():
        row[checks.index[name]] = value
    return row


def _values(recorded: RecordedTransitions, fluent: Fluent, have: int) -> Iterator[list[int]]:
    if fluent.kind == "count":
        have = min(have, fluent.high - 2)
        yield from ([have + change for change in changes] for changes in _COUNT_CYCLES)
    elif fluent.kind == "vital":
        yield from ([fluent.high + change for change in changes] for changes in _VITAL_CYCLES)
    elif fluent.kind == "place":
        yield [0, 1, 0]
    else:
        far = min(4, fluent.high)
        yield [far, far - 1, far]
        if _jumps(recorded, fluent):
            walk = list(range(min(3, fluent.high - 1), fluent.high + 1))
            yield [*walk, walk[0]]
            yield [*walk[::-1], walk[-1]]


def _jumps(recorded: RecordedTransitions, fluent: Fluent) -> bool:
    """Whether a distance was recorded to change by more than 1: a new block in view may be near already."""
    column = recorded.vocabulary.fluents.index(fluent)
    return bool((np.abs(recorded.now[:, column] - recorded.prev[:, column]) > 1).any())


def _companions(checks: ProgramChecks) -> set[str]:
    """Return the flags that were only ever raised together with the skill's gain."""
    recorded = checks.recorded
    counts = [checks.index[name] for name in checks.skill.gain]
    gained = np.asarray((recorded.now[:, counts] > recorded.prev[:, counts]).any(axis=1))
    found = set()
    for fluent in checks.read:
        if fluent.kind == "flag":
            column = checks.index[fluent.name]
            raised = np.flatnonzero(recorded.now[:, column] > recorded.prev[:, column])
            if len(raised) and gained[raised].all():
                found.add(fluent.name)
    return found
