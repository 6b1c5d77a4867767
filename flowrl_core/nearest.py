"""Which known name a person may have meant, and how a message suggests it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

__all__ = ["did_you_mean", "nearest", "remedy_for", "several"]

_LONGEST = 64
_MOST_LISTED = 12


def nearest(name: str, known: Collection[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known names most like it; one that differs by case, blanks, or - for _ alone is the only one."""
    plain = _plain(name)
    if same := [one for one in known if plain and _plain(one) == plain]:
        return same[:most]
    folded = {_plain(one): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(plain[:_LONGEST], folded, n=most, cutoff=cutoff)]


def remedy_for(name: str, known: Collection[str], *, most: int = 3, cutoff: float = 0.5, otherwise: str = "") -> str:
    """Return the remedy for an unknown name: the known names most like it, else `otherwise`, else what is known.

    Args:
        most: so many names are suggested at most.
        cutoff: how like it they must be, from 0 to 1.
    """
    if near := nearest(name, known, most=most, cutoff=cutoff):
        return did_you_mean(near)
    listed = sorted(known)[:_MOST_LISTED]
    return otherwise or f"Known: {', '.join([*listed, *(['...'] if len(known) > len(listed) else [])]) or 'none'}"


def did_you_mean(names: Sequence[str]) -> str:
    """Return the question that suggests these names, of which there is at least one."""
    return f"Did you mean {' or '.join(names)}?"


def several(name: str, known: Collection[str]) -> list[str]:
    """The known names of which it is a list, written as one text; empty if it is none."""
    names = [part for part in re.split(r"[\s,;\[\]\"']+", name) if part]
    return names if len(names) > 1 and set(names) <= set(known) else []


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]+", "_", name.casefold()).strip("_").replace("\u200b", "")
