"""Text in messages: foreign text quoted, things counted; and when two names look alike."""

from __future__ import annotations

import unicodedata

__all__ = ["counted", "folded", "quoted"]


def quoted(text: object, limit: int = 60) -> str:
    """Return foreign text as one quoted line of at most `limit` characters."""
    shown = repr(text[: limit + 1] if isinstance(text, str) else text)
    return shown if len(shown) <= limit else f"{shown[: limit - 4]}...{shown[-1]}"


def counted(number: int, noun: str) -> str:
    """Return how many there are, in words: `1 look`, `2 looks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def folded(name: str) -> str:
    """Return the form shared by names that differ only in case or Unicode form; some file systems equate them.

    Compatibility caseless matching (The Unicode Standard, definition D146), in composed form.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
