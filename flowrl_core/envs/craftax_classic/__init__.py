"""Craftax-Classic (symbolic), the game of the package `craftax`. Importing this imports no JAX."""

from __future__ import annotations

from pathlib import Path

from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.vocabulary.catalogue import Environment

__all__ = ["ENVIRONMENT"]

ENVIRONMENT = Environment(
    vocabulary=CRAFTAX_CLASSIC,
    adapter="flowrl_core.envs.craftax_classic.adapter:make",
    packages=("craftax",),
    knowledge=Path(__file__).with_name("knowledge.toml"),
    transitions=Path(__file__).with_name("recorded.npz"),
    scene="flowrl_core.envs.craftax_classic.scene:SCENE",
)
