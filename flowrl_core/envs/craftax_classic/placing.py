"""Set fluents of a state of Craftax-Classic: amounts, achievements, vitals, blows, and the player's surroundings.

A distance is set by putting a block or creature in the player's view and removing nearer ones. Removed blocks become
sand: nothing spawns on it, and no skill refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from craftax.craftax_classic.constants import DIRECTIONS, SOLID_BLOCKS, BlockType

from flowrl_core.envs.craftax_classic.blows import DEALT, TAKEN
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC, KINDS
from flowrl_core.envs.placing import cannot_be, wanted_values

__all__ = ["placed"]

_VITALS = ("health", "food", "drink", "energy")
_ACHIEVEMENTS = tuple(f.name for f in CRAFTAX_CLASSIC.fluents if f.name.startswith("ach."))
_NONE_IN_VIEW = next(f.high for f in CRAFTAX_CLASSIC.fluents if f.kind == "distance")
_MOBS = {"zombie": "zombies", "cow": "cows", "skeleton": "skeletons"}
_HEALTH = {"zombie": 5, "cow": 3, "skeleton": 3}
_RIPE_AGE = 600
_HALF_ROWS, _HALF_COLUMNS = 3, 4
_VIEW = tuple(
    (dy, dx)
    for dy in range(-_HALF_ROWS, _HALF_ROWS + 1)
    for dx in range(-_HALF_COLUMNS, _HALF_COLUMNS + 1)
)  # fmt: skip

Cell = tuple[int, int]


@dataclass(frozen=True)
class _Wish:
    """The requested position of the nearest block or creature of a kind: its distance, whether it is near, or both.

    Attributes:
        name, value: the fluent that an error names.
        distance: steps to it; None if any will do.
        is_near: whether one must be among the eight cells around the player; None if either will do.
    """

    kind: str
    name: str
    value: int
    distance: int | None
    is_near: bool | None

    def allows(self, dy: int, dx: int) -> bool:
        """Whether the nearest one may be in this cell."""
        return self.distance in (None, abs(dy) + abs(dx)) and self.is_near in (None, _is_beside(dy, dx))

    def forbids(self, dy: int, dx: int) -> bool:
        """Whether this cell must not hold one."""
        is_nearer = self.distance is not None and abs(dy) + abs(dx) < self.distance
        return is_nearer or (self.is_near is False and _is_beside(dy, dx))

    @property
    def is_for_none(self) -> bool:
        """Whether the wish is met once no forbidden cell holds one."""
        return self.distance == _NONE_IN_VIEW or (self.distance is None and not self.is_near)


def placed(state: Any, values: Mapping[str, float]) -> Any:
    """Return the state with these fluents set; changed leaves are numpy arrays.

    Raises:
        InputError: a fluent cannot have its value.
    """
    wanted = wanted_values(CRAFTAX_CLASSIC, values)
    items = {name.removeprefix("inv."): value for name, value in wanted.items() if name.startswith("inv.")}
    held = {item: _like(getattr(state.inventory, item), value) for item, value in items.items()}
    achievements = np.array(state.achievements)
    for i, name in enumerate(_ACHIEVEMENTS):
        achievements[i] = wanted.get(name, achievements[i])
    vitals = {f"player_{v}": _like(getattr(state, f"player_{v}"), wanted[v]) for v in _VITALS if v in wanted}
    blows = {
        "dealt": np.array([wanted.get(name, old) for name, old in zip(DEALT, state.dealt, strict=True)], np.int32),
        "taken": _like(state.taken, wanted.get(TAKEN, int(state.taken))),
    }
    state = state.replace(inventory=state.inventory.replace(**held), achievements=achievements, **vitals, **blows)
    wishes = list(_wishes(wanted))
    return _Surroundings(state).granting(wishes) if wishes else state


def _wishes(wanted: Mapping[str, int]) -> Iterator[_Wish]:
    for kind in KINDS:
        distance, near = wanted.get(f"dist.{kind}"), wanted.get(f"near.{kind}")
        if distance is None and near is None:
            continue
        name, value = (f"dist.{kind}", distance) if distance is not None else (f"near.{kind}", near or 0)
        wish = _Wish(kind, name, value, distance, None if near is None else bool(near))
        if distance == 0 and kind != "grass":
            raise cannot_be(name, 0, "the player would stand in it")
        if not wish.is_for_none and not any(wish.allows(*cell) for cell in _VIEW):
            raise cannot_be(f"near.{kind}", near or 0, f"dist.{kind} is to be {distance}")
        if near and distance == _NONE_IN_VIEW:
            raise cannot_be(f"near.{kind}", 1, f"dist.{kind} is to be {distance}")
        yield wish


class _Surroundings:
    """The cells around a player and the creatures in them, while they are being changed."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._player: Cell = (int(state.player_position[0]), int(state.player_position[1]))
        self._facing = tuple(int(v) for v in np.asarray(DIRECTIONS)[int(state.player_direction)])
        self._map = np.array(state.map)
        self._mobs = {
            kind: {name: np.array(getattr(getattr(state, field), name)) for name in ("position", "health", "mask")}
            for kind, field in _MOBS.items()
        }
        self._taken: set[Cell] = {(0, 0)}

    def granting(self, wishes: list[_Wish]) -> Any:
        """Return the state that meets all wishes."""
        for wish in wishes:
            for cell in filter(self._is_on_map, _VIEW):
                if wish.forbids(*cell) and self._has(wish.kind, cell):
                    self._remove(wish.kind, cell)
        absent = [wish for wish in wishes if not wish.is_for_none and not self._keep(wish)]
        # Wishes with the fewest possible cells come first.
        for wish in sorted(absent, key=lambda wish: sum(wish.allows(*cell) for cell in _VIEW)):
            self._put(wish)
        return self._result()

    def _keep(self, wish: _Wish) -> bool:
        """Whether an existing one already meets the wish; its cell is then reserved."""
        for cell in filter(self._is_on_map, _VIEW):
            is_free = cell not in self._taken or (cell == (0, 0) and wish.distance == 0)
            if is_free and wish.allows(*cell) and self._has(wish.kind, cell):
                self._taken.add(cell)
                return True
        return False

    def _put(self, wish: _Wish) -> None:
        if wish.distance == 0:
            self._set_block((0, 0), wish.kind)
            return
        free = [c for c in _VIEW if wish.allows(*c) and c not in self._taken and self._is_on_map(c)]
        if not free:
            raise cannot_be(wish.name, wish.value, "no cell is left for it")
        cell = min(free, key=self._disturbance)
        self._taken.add(cell)
        for kind in _MOBS:
            if self._has(kind, cell):
                self._remove(kind, cell)
        if wish.kind in _MOBS:
            self._set_mob(wish.kind, cell)
        else:
            self._set_block(cell, wish.kind)

    def _disturbance(self, cell: Cell) -> tuple[bool, bool]:
        """Return a sort key: cells without anything that a skill refers to first, among them the faced one first."""
        is_used = any(self._has(kind, cell) for kind in KINDS if kind != "grass")
        return is_used, cell != self._facing

    def _has(self, kind: str, cell: Cell) -> bool:
        if kind in _MOBS:
            return bool(self._at(kind, cell).any())
        return bool(self._map[self._absolute(cell)] == BlockType[kind.upper()].value)

    def _remove(self, kind: str, cell: Cell) -> None:
        if kind in _MOBS:
            self._mobs[kind]["mask"] &= ~self._at(kind, cell)
        else:
            self._map[self._absolute(cell)] = BlockType.SAND.value

    def _set_block(self, cell: Cell, kind: str) -> None:
        self._map[self._absolute(cell)] = BlockType[kind.upper()].value

    def _set_mob(self, kind: str, cell: Cell) -> None:
        """Put an unused creature of the kind in the cell; if all are in use, move the last one."""
        mobs, at = self._mobs[kind], self._absolute(cell)
        index = int(np.argmin(mobs["mask"])) if not mobs["mask"].all() else len(mobs["mask"]) - 1
        mobs["position"][index], mobs["mask"][index], mobs["health"][index] = at, True, _HEALTH[kind]
        if kind == "skeleton":
            self._map[at] = BlockType.PATH.value
        elif self._map[at] in (*np.asarray(SOLID_BLOCKS), BlockType.LAVA.value):
            self._map[at] = BlockType.SAND.value

    def _at(self, kind: str, cell: Cell) -> np.ndarray:
        mobs = self._mobs[kind]
        found: np.ndarray = mobs["mask"] & (mobs["position"] == self._absolute(cell)).all(axis=1)
        return found

    def _absolute(self, cell: Cell) -> Cell:
        return self._player[0] + cell[0], self._player[1] + cell[1]

    def _is_on_map(self, cell: Cell) -> bool:
        return all(0 <= at < size for at, size in zip(self._absolute(cell), self._map.shape, strict=True))

    def _result(self) -> Any:
        state = self._state
        mobs = {field: getattr(state, field).replace(**self._mobs[kind]) for kind, field in _MOBS.items()}
        occupied = np.zeros_like(np.asarray(state.mob_map))
        for one in mobs.values():
            occupied[tuple(one.position[one.mask].T)] = True
        return _with_plants(state.replace(map=self._map, mob_map=occupied, **mobs))


def _with_plants(state: Any) -> Any:
    """Return the state whose list of growing plants matches the map: the game ripens and eats only those listed."""
    positions, ages = np.array(state.growing_plants_positions), np.array(state.growing_plants_age)
    mask = np.array(state.growing_plants_mask)
    world = np.asarray(state.map)
    kinds = (BlockType.PLANT.value, BlockType.RIPE_PLANT.value)
    mask &= np.isin(world[tuple(positions.T)], kinds)
    known = {tuple(at) for at in positions[mask]}
    for at in np.argwhere(np.isin(world, kinds)):
        if tuple(at) not in known and not mask.all():
            slot = int(np.argmin(mask))
            is_ripe = world[tuple(at)] == BlockType.RIPE_PLANT.value
            positions[slot], ages[slot], mask[slot] = at, _RIPE_AGE if is_ripe else 0, True
    return state.replace(growing_plants_positions=positions, growing_plants_age=ages, growing_plants_mask=mask)


def _is_beside(dy: int, dx: int) -> bool:
    return max(abs(dy), abs(dx)) == 1


def _like(old: Any, value: int) -> np.ndarray:
    return np.asarray(value, np.asarray(old).dtype)
