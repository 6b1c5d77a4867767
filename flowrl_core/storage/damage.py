"""What is missing or damaged of what the registry counts on, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowrl_core.storage.layout import Home

__all__ = ["Damaged", "in_words"]

_NAMED = 3


@dataclass(frozen=True)
class Damaged:
    """A directory of which not all is there.

    Attributes:
        owner: whose content it is, as in `expert 2 (collect_wood)`.
        what: the content, as in `version 5`.
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
    """What is wrong, naming the first few, and the remedy."""
    elsewhere = "or start over with FLOWRL_HOME set to a new directory"
    if not home.versions.is_dir() and all(one.place.startswith(f"{home.versions.name}/") for one in damaged):
        owners = ", ".join(dict.fromkeys(one.owner for one in damaged))
        problem = f"{home.versions} is missing, and with it the parameters of {owners}"
        return problem, f"restore {home.versions.name}/ from a backup, {elsewhere}"
    named = "; ".join(str(one) for one in damaged[:_NAMED])
    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    places = " ".join(dict.fromkeys(one.place for one in damaged[:_NAMED]))
    return f"{named}{more}", f"restore {places} from a backup, {elsewhere}"
