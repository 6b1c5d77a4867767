"""The keys of artifacts in the Prefect UI."""

from __future__ import annotations

import re

__all__ = ["slug"]


def slug(name: str) -> str:
    """Return the name as an artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
