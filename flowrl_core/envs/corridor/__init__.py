"""The corridor: a tiny world with sixteen kinds of item that learns in seconds. Importing this imports no JAX."""

from __future__ import annotations

from pathlib import Path

from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.vocabulary.catalogue import Environment

__all__ = ["ENVIRONMENT"]

ENVIRONMENT = Environment(
    vocabulary=CORRIDOR,
    adapter="flowrl_core.envs.corridor.adapter:make",
    knowledge=Path(__file__).with_name("knowledge.toml"),
    transitions=Path(__file__).with_name("recorded.npz"),
    scene="flowrl_core.envs.corridor.scene:SCENE",
)
