"""The record of a program."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Program"]


@dataclass(frozen=True)
class Program:
    """A frozen pair of texts in the program language: a skill's done condition and its reward."""

    done: str
    reward: str
