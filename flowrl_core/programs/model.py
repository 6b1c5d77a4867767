"""What a program is: two texts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Program"]


@dataclass(frozen=True)
class Program:
    """When a skill is done and what it rewards: two expressions of the program language."""

    done: str
    reward: str
