"""Which known name a person may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

__all__ = ["nearest", "several"]

_LONGEST = 64


def nearest(name: str, known: Collection[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known names most like it; one that differs by case, blanks, or - for _ alone is the only one."""
    plain = _plain(name)
    if same := [one for one in known if plain and _plain(one) == plain]:
        return same[:most]
    folded = {_plain(one): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(plain[:_LONGEST], folded, n=most, cutoff=cutoff)]


def several(name: str, known: Collection[str]) -> list[str]:
    """The known names of which it is a list, written as one text; empty if it is none."""
    names = [part for part in re.split(r"[\s,;\[\]\"']+", name) if part]
    return names if len(names) > 1 and set(names) <= set(known) else []


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]+", "_", name.casefold()).strip("_").replace("\u200b", "")
