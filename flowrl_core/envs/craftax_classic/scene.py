"""How transitions of Craftax-Classic are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from craftax.craftax_classic.constants import BlockType

from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.envs.scene import Scene

if TYPE_CHECKING:
    from flowrl_core.envs.adapter import Adapter

__all__ = ["SCENE"]

_KINDS = ("TREE", "STONE", "COAL", "IRON", "DIAMOND", "WATER", "CRAFTING_TABLE", "FURNACE", "RIPE_PLANT")
_BLOCKS = [BlockType[name].value for name in (*_KINDS, *["GRASS"] * 10)]
_ITEMS = tuple(f.name for f in CRAFTAX_CLASSIC.fluents if f.name.startswith("inv."))
_ACHIEVEMENTS = tuple(f.name for f in CRAFTAX_CLASSIC.fluents if f.name.startswith("ach."))


def _errand(t: int, sight: np.ndarray) -> str:
    """Go to the nearest tree in view and cut it."""
    if t % 2:
        return "do"
    x, y, dx, dy = sight[:4]
    if not sight[4]:
        return "right" if t % 8 else "down"
    if abs(dx * 4) >= abs(dy * 3):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _late(draw: np.random.Generator, adapter: Adapter, state: Any) -> Any:
    """Return the state with some of every item, some achievements, all kinds of block around, and creatures beside."""
    y, x = (int(v) for v in state.player_position)
    world = np.array(state.map)
    patch = world[max(y - 4, 0) : y + 5, max(x - 5, 0) : x + 6]
    patch[...] = draw.choice(_BLOCKS, patch.shape)
    world[y, x] = BlockType.GRASS.value
    values = {name: int(draw.integers(0, 9)) for name in _ITEMS}
    values |= {name: int(draw.random() < 0.5) for name in _ACHIEVEMENTS}
    values |= {vital: int(draw.integers(3, 10)) for vital in ("food", "drink", "energy")}
    values |= {f"dist.{creature}": 1 for creature in ("cow", "skeleton")}
    values |= {"dist.zombie": 1} if draw.random() < 0.5 else {}
    _, late = adapter.place(state.replace(map=world.astype(state.map.dtype)), values)
    return late


SCENE = Scene("noop", ("left", "right", "up", "down"), "do", "tree", _errand, _late)
