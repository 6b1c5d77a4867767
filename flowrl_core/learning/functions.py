"""The functions compiled for a learner, and the arguments of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

__all__ = ["ARGUMENTS", "DONATED", "Function", "Functions"]

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "renew": ("pool", "use", "key", "max_uses"),
    "start": ("pool", "use", "mode"),
    "play": ("params", "playing", "pool", "use", "snapshots", "plan", "mode", "key"),
    "improve": ("params", "optimizer_state", "trajectory", "last_value", "hyper", "key"),
}
"""Function name -> the names of its arguments, in order."""

DONATED: Mapping[str, tuple[str, ...]] = {
    "renew": ("pool", "use"),
    "start": (),
    "play": ("playing", "use", "snapshots"),
    "improve": ("params", "optimizer_state"),
}
"""Arguments whose memory the result may reuse: the caller does not use them again."""


@dataclass(frozen=True)
class Function:
    """A function for arguments of fixed shapes, compiled on its first call.

    Attributes:
        jitted: the function under `jax.jit`; it consumes the arguments named in `DONATED`.
        arguments: name -> the tree of `jax.ShapeDtypeStruct` of each argument, in order.
    """

    jitted: Any
    arguments: Mapping[str, Any]

    def __call__(self, *args: Any) -> Any:
        """Call the function; arguments are trees of numpy or JAX arrays."""
        return self._compiled(*args)

    def zeros(self, argument: str) -> Any:
        """Return zeros in the shape of an argument, on the device."""
        shapes = self.arguments[argument]
        return jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        # Compile from shapes alone: `jax.jit` would compile again for a numpy array after an array on the device.
        compiled: Callable[..., Any] = self.jitted.lower(*self.arguments.values()).compile()
        return compiled


@dataclass(frozen=True)
class Functions:
    """All functions compiled for one set of shapes; `ARGUMENTS` names the arguments of each.

    Attributes:
        renew: returns (pool, use); see `worlds.replace_used`.
        start: returns (playing, use); see `rollout.begin`.
        play: see `rollout.rollout`.
        improve: see `ppo.update`.
    """

    renew: Function
    start: Function
    play: Function
    improve: Function
