"""ProgramChecks: evaluates a skill's programs on recorded and synthetic transitions. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowrl_core.programs.language import Checked, check_done, check_reward
from flowrl_core.programs.reference import evaluate_named
from flowrl_core.programs.registers import COUNTS, Registers
from flowrl_core.proposals.recorded_transitions import RecordedTransitions
from flowrl_core.skills import symbolic
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.vocabulary.model import Fluent

__all__ = ["Judged", "ProgramChecks", "program_checks_of"]

_AMOUNTS = ("count", "tier")
_CHANCE = 20


@dataclass(frozen=True)
class Judged:
    """A frozen record of the programs' results for K transitions: done bool[K] and reward f32[K]."""

    done: np.ndarray
    reward: np.ndarray


@dataclass(frozen=True, eq=False)
class ProgramChecks:
    """A frozen record of a skill's programs and the data to run them on.

    Attributes:
        skill: the skill.
        done, reward: its proven programs.
        entry: the nonzero fluents when its step begins, according to its plan.
        recorded: the recorded transitions.
    """

    skill: Skill
    done: Checked
    reward: Checked
    entry: Mapping[str, int]
    recorded: RecordedTransitions

    @cached_property
    def layout(self) -> Registers:
        """The register layout: where each name is read."""
        return self.recorded.layout

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Base fluent -> its index in a row."""
        return {fluent.name: i for i, fluent in enumerate(self.recorded.vocabulary.fluents)}

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """The target counts that the plan, and so the entry, covers: `learn_count`, and 1 if a program reads n."""
        is_read = "n" in {*self.done.fluents, *self.reward.fluents}
        return tuple(dict.fromkeys((self.skill.learn_count, 1))) if is_read else (self.skill.learn_count,)

    @cached_property
    def lasting_counts(self) -> tuple[int, ...]:
        """The same plus the maximum n, if a program reads n: farming shows if the skill is not done early."""
        is_read = "n" in {*self.done.fluents, *self.reward.fluents}
        return tuple(dict.fromkeys((*self.counts, COUNTS[-1]))) if is_read else self.counts

    @cached_property
    def read(self) -> tuple[Fluent, ...]:
        """The base fluents that the reward depends on."""
        return self.layout.told(self.reward.fluents)

    @cached_property
    def at_entry(self) -> np.ndarray:
        """f32[F]: an empty world when the skill's step begins; only the places that are near are in view."""
        row = [f.high if f.kind in ("vital", "level", "distance") else f.low for f in self.recorded.vocabulary.fluents]
        return self.changed(np.array(row, np.float32), self.entry)

    def is_amount(self, name: str) -> bool:
        """Whether a skill gains an amount of this base fluent; of a flag or place it gains 1."""
        return self.recorded.vocabulary.fluents[self.index[name]].kind in _AMOUNTS

    def changed(self, row: np.ndarray, values: Mapping[str, int]) -> np.ndarray:
        """Return the row f32[F] with these values; the distance of a place changes with its `near` fluent."""
        row = row.copy()
        for name, value in values.items():
            row[self.index[name]] = value
            distance = f"dist.{name.removeprefix('near.')}"
            if name in self.recorded.beside and distance not in values:
                row[self.index[distance]] = self.recorded.beside[name] + (0 if value else 1)
        return row

    def judge(self, registers: np.ndarray, n: int, *, is_laid: bool = False) -> Judged:
        """Return the programs' results for the register columns f32[R, K] with a target count.

        Args:
            registers: from `RecordedTransitions`.
            n: the target count.
            is_laid: overlay the entry (the gains of the plan's earlier steps) on the state. Changes stay the same.
        """
        values = {name: registers[self.layout.slots[name].index] for name in {*self.done.fluents, *self.reward.fluents}}
        if "n" in values:
            values["n"] = np.full(registers.shape[1], n, np.float32)
        if is_laid:
            for name in self._laid.keys() & values.keys():
                high = self.layout.slots[name].interval[1]
                kept = values[name] if self.is_amount(name) else np.float32(0)
                values[name] = np.broadcast_to(np.minimum(kept + self._laid[name], high), registers.shape[1:])
        size = registers.shape[1:]
        return Judged(
            np.broadcast_to(evaluate_named(self.done.expression, values), size) > 0.5,
            np.broadcast_to(evaluate_named(self.reward.expression, values), size),
        )

    def along(self, states: Sequence[np.ndarray], n: int) -> Judged:
        """Return the results for the transitions from each state f32[F] to the next; the step began in the first."""
        return self.judge(self.registers_along(states), n)

    def registers_along(self, states: Sequence[np.ndarray]) -> np.ndarray:
        """Return the registers f32[R, K] of the transitions between K + 1 consecutive states f32[F]."""
        rows = np.stack(states)
        start = np.broadcast_to(rows[0], rows[1:].shape)
        return self.recorded.registers(rows[1:], rows[:-1], start)

    def path(self, n: int) -> list[np.ndarray]:
        """Return the states f32[F] of gaining the declared amounts, unit by unit, while the consumption is used up.

        A gained place is approached first. Flags are raised by the first unit.
        """
        skill, state = self.skill, dict(self.entry)
        gained = {name: amount.at(n) for name, amount in skill.gain.items()}
        amounts = {name for name in gained if self.is_amount(name)}
        distances = [f"dist.{name.removeprefix('near.')}" for name in gained if name in self.recorded.beside]
        far = {name: min(4, int(self.layout.slots[name].interval[1])) for name in distances}
        states = [self.changed(self.at_entry, {name: distance - k for name, distance in far.items()}) for k in range(3)]
        units = max([gained[name] for name in amounts], default=1)
        for k in range(1, units + 1):
            for name, amount in skill.consumption.items():
                state[name] = self.entry.get(name, 0) - amount.at(n) * k // units
            for name, amount_gained in gained.items():
                is_amount = name in amounts
                state[name] = self.entry.get(name, 0) + amount_gained * k // units if is_amount else 1
            states.append(self.changed(self.at_entry, state))
        return states if distances else states[2:]

    @cached_property
    def walked(self) -> Mapping[int, Judged]:
        """The programs' results along the path, by target count."""
        return {n: self.along(self.path(n), n) for n in self.counts}

    @cached_property
    def events(self) -> np.ndarray:
        """i64[K]: the indices of recorded transitions in which the skill's gain occurred."""
        progress = self.index[self.skill.progress]
        held = [self.index[name] for name in self.skill.gain if not self.is_amount(name)]
        rose = np.flatnonzero(self.recorded.now[:, progress] > self.recorded.prev[:, progress])
        return rose[(self.recorded.now[rose][:, held] == 1).all(axis=1)]

    @cached_property
    def most_recorded(self) -> float:
        """The largest reward of these transitions, with and without the entry overlaid; -inf if there are none.

        Without what totals rose by, such as the last blow of a fight. The highest twentieth does not count either: a
        wounded player's health may rise in the step of the gain by chance.
        """
        now, prev, start = (rows[self.events] for rows in (self.recorded.now, self.recorded.prev, self.recorded.start))
        is_total = np.array([fluent.kind == "total" for fluent in self.recorded.vocabulary.fluents])
        registers = self.recorded.registers(np.where(is_total, prev, now), prev, start)
        laid = (False, True) if self.entry else (False,)
        judged = [self.judge(registers, n, is_laid=is_laid) for n in self.counts for is_laid in laid]
        by_chance = len(self.events) // _CHANCE
        return max((float(np.sort(one.reward)[-1 - by_chance]) for one in judged if len(self.events)), default=-np.inf)

    @cached_property
    def _laid(self) -> Mapping[str, int]:
        """The entry, with the distances of the places that are near."""
        beside = {
            f"dist.{name.removeprefix('near.')}": self.recorded.beside[name]
            for name in self.entry
            if name in self.recorded.beside
        }
        return {**self.entry, **beside}


def program_checks_of(skill: Skill, plan: Plan, knowledge: Knowledge, recorded: RecordedTransitions) -> ProgramChecks:
    """Return the checks of a skill with a verified plan.

    Args:
        skill: its programs are accepted by the language.
        plan: ends with the skill.
        knowledge: contains the plan's other skills.
        recorded: transitions of the same environment.
    """
    before = plan.steps[:-1]
    entry = symbolic.execute(Plan(before[-1].skill, before), knowledge) if before else {}
    vocab = knowledge.vocabulary
    return ProgramChecks(
        skill, check_done(skill.program.done, vocab), check_reward(skill.program.reward, vocab), entry, recorded
    )
