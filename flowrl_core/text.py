"""Texts of somebody else's making: quoted in messages, and compared by what they look like."""

from __future__ import annotations

import unicodedata

__all__ = ["folded", "quoted"]


def quoted(text: object, limit: int = 60) -> str:
    """Somebody else's text as one line of at most `limit` characters: nothing of it is taken for ours."""
    shown = repr(text[: limit + 1] if isinstance(text, str) else text)
    return shown if len(shown) <= limit else f"{shown[: limit - 4]}...{shown[-1]}"


def folded(name: str) -> str:
    """A form that names share if they differ only in case or Unicode form, as some file systems take them for one.

    Compatibility caseless matching (The Unicode Standard, definition D146), in composed form.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
