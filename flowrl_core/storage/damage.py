"""What is missing or damaged of the versions that the library counts on: its heads, and what its bundles were proven
with.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowrl_core.storage.layout import Home
from flowrl_core.storage.manifests import flaw
from flowrl_core.storage.registry import Registry

__all__ = ["Damaged", "damaged_versions", "in_words"]

_NAMED = 3


@dataclass(frozen=True)
class Damaged:
    """A version of which not all is there.

    Attributes:
        expert, skill: whose it is.
        version, content: its number, and the name of its directory.
        flaw: what is wrong with the directory, in words.
    """

    expert: int
    skill: str
    version: int
    content: str
    flaw: str

    def __str__(self) -> str:
        return f"version {self.version} of expert {self.expert} ({self.skill}): versions/{self.content} {self.flaw}"


def damaged_versions(home: Home, registry: Registry, *, by_size: bool) -> list[Damaged]:
    """Those that are not whole, by expert and version.

    Args:
        by_size: look at the sizes of their files only; else at their checksums too.
    """
    names = {expert.global_index: expert.name for expert in registry.library.experts()}
    found = []
    for version in registry.library.relied_on():
        if problem := flaw(home.version(version.content), by_size=by_size):
            found.append(Damaged(version.expert, names[version.expert], version.id, version.content, problem))
    return found


def in_words(home: Home, damaged: list[Damaged]) -> tuple[str, str]:
    """What is wrong, naming the first few, and the remedy."""
    if not home.versions.is_dir():
        experts = ", ".join(dict.fromkeys(f"{one.expert} ({one.skill})" for one in damaged))
        problem = f"{home.versions} is not there: the library has lost the experts {experts}"
        return problem, "put versions/ back from a backup, or begin anew with FLOWRL_HOME set to a new directory"
    named = "; ".join(str(one) for one in damaged[:_NAMED])
    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    places = " ".join(dict.fromkeys(f"versions/{one.content}" for one in damaged[:_NAMED]))
    return f"{named}{more}", f"put {places} back from a backup, or begin anew with FLOWRL_HOME set to a new directory"
