"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

__all__ = ["did_you_mean", "nearest", "remedy_for", "several"]

_LONGEST = 64
_MOST_LISTED = 12


def nearest(name: str, known: Collection[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """Return the most similar known names; only the match if it differs just in case, blanks, or - for _."""
    plain = _plain(name)
    if same := [one for one in known if plain and _plain(one) == plain]:
        return same[:most]
    folded = {_plain(one): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(plain[:_LONGEST], folded, n=most, cutoff=cutoff)]


def remedy_for(name: str, known: Collection[str], *, most: int = 3, cutoff: float = 0.5, otherwise: str = "") -> str:
    """Return the remedy for an unknown name: the most similar known names, else `otherwise`, else known names.

    Args:
        most: maximum number of suggestions.
        cutoff: minimum similarity, from 0 to 1.
    """
    if near := nearest(name, known, most=most, cutoff=cutoff):
        return did_you_mean(near)
    listed = sorted(known)[:_MOST_LISTED]
    return otherwise or f"Known: {', '.join([*listed, *(['...'] if len(known) > len(listed) else [])]) or 'none'}"


def did_you_mean(names: Sequence[str]) -> str:
    """Return the question that suggests these names (at least one)."""
    *others, last = names
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"


def several(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that `name` lists in one text; empty if it is not such a list."""
    names = [part for part in re.split(r"[\s,;\[\]\"']+", name) if part]
    return names if len(names) > 1 and set(names) <= set(known) else []


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]+", "_", name.casefold()).strip("_").replace("\u200b", "")
