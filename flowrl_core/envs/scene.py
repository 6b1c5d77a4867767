"""The scene: what recording transitions needs from an environment. No JAX here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from flowrl_core.envs.adapter import Adapter

__all__ = ["Scene"]


@dataclass(frozen=True)
class Scene:
    """How to play the recorded transitions of an environment.

    Attributes:
        still: an action that changes nothing.
        moves: the actions that move the player.
        tool: the action that collects; a third of the actions of `late` are this action, and a third are moves.
        target: the target whose direction the errand receives.
        errand: (step, sight f32[6]) -> the errand's next action.
        late: (draw, adapter, state) -> a state typical of late in an episode, in numpy.
    """

    still: str
    moves: tuple[str, ...]
    tool: str
    target: str
    errand: Callable[[int, np.ndarray], str]
    late: Callable[[np.random.Generator, Adapter, Any], Any]
