"""What `flowrl doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and the command that mends it (empty when nothing is wrong)."""

    what: str
    state: Literal["ok", "wrong"]
    found: str
    mend: str = ""
