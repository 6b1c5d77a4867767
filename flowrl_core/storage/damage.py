"""Descriptions of missing or damaged directories that the registry relies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowrl_core.storage.layout import Home

__all__ = ["Damaged", "in_words"]

_NAMED = 3


@dataclass(frozen=True)
class Damaged:
    """A directory that is damaged or missing.

    Attributes:
        owner: the owner of the content, such as `expert 2 (collect_wood)`.
        what: the content, such as `version 5`.
        place: the directory's path below the home.
        flaw: what is wrong with it, in words.
    """

    owner: str
    what: str
    place: str
    flaw: str

    def __str__(self) -> str:
        return f"{self.what} of {self.owner}: {self.place} {self.flaw}"


def in_words(home: Home, damaged: Sequence[Damaged]) -> tuple[str, str]:
    """The problem, naming the first few directories, and the remedy."""
    elsewhere = "or start over with FLOWRL_HOME set to a new directory"
    if not home.versions.is_dir() and all(one.place.startswith(f"{home.versions.name}/") for one in damaged):
        owners = ", ".join(dict.fromkeys(one.owner for one in damaged))
        problem = f"{home.versions} is missing, and with it the parameters of {owners}"
        return problem, f"restore {home.versions.name}/ from a backup, {elsewhere}"
    named = "; ".join(str(one) for one in damaged[:_NAMED])
    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    places = " ".join(dict.fromkeys(one.place for one in damaged[:_NAMED]))
    return f"{named}{more}", f"restore {places} from a backup, {elsewhere}"
