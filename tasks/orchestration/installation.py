"""Where FlowRL is installed on this machine: what its flow runs have as their working directory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT", "enter"]

ROOT = Path(__file__).resolve().parents[2]
"""The directory that holds `flows` and `tasks`."""


def enter() -> dict[str, str]:
    """A pull step: the run's working directory, wherever its machine has it."""
    return {"directory": str(ROOT)}
