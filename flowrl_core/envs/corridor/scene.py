"""How transitions of the corridor are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowrl_core.envs.corridor.vocabulary import CORRIDOR_ITEMS
from flowrl_core.envs.scene import Scene

if TYPE_CHECKING:
    from flowrl_core.envs.adapter import Adapter

__all__ = ["SCENE"]


def _errand(t: int, sight: np.ndarray) -> str:
    """Go to the mine, dig three times, go to the bench and make something."""
    del sight
    number, phase = divmod(t, 16)
    return (["right"] * 5 + ["dig"] * 3 + ["left"] * 5 + [f"make_{'bcdefghijklmno'[number]}"] * 3)[phase]


def _late(draw: np.random.Generator, adapter: Adapter, state: Any) -> Any:
    """Return the state with some of every item in the inventory."""
    amounts = draw.integers(0, 9, len(CORRIDOR_ITEMS))
    _, late = adapter.place(
        state, {f"inv.{item}": amount for item, amount in zip(CORRIDOR_ITEMS, amounts, strict=True)}
    )
    return late


SCENE = Scene("make_p", ("left", "right"), "dig", "mine", _errand, _late)
