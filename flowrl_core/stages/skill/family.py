"""The family of skill runs, as housekeeping and backup see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flowrl_core.storage.atomic import is_temporary, remove_directory
from flowrl_core.storage.damage import Damaged
from flowrl_core.storage.families import Family, Rule, View
from flowrl_core.storage.layout import Home
from flowrl_core.storage.manifests import flaw
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.registry import Registry

__all__ = ["SKILLS", "damaged_versions"]


def damaged_versions(home: Home, registry: Registry, by_size: bool) -> list[Damaged]:
    """The damaged or missing versions of heads and bundles, by expert and version."""
    names = {expert.global_index: expert.name for expert in registry.library.experts()}
    found = []
    for version in registry.library.relied_on():
        path = home.version(version.content)
        if problem := flaw(path, by_size=by_size):
            owner = f"expert {version.expert} ({names[version.expert]})"
            place = path.relative_to(home.root).as_posix()
            found.append(Damaged(owner, f"version {version.id}", place, problem))
    return found


def _learners(home: Home) -> Iterator[Path]:
    return (path for path in (home.cache / "learners").glob("*") if path.is_dir() and not is_temporary(path))


def _why_learner(view: View, path: Path) -> str:
    age = view.age(path)
    return f"compiled programs and worlds, last used {age / 86_400:.0f} days ago" if age > view.keep_s else ""


SKILLS = Family(
    name="skill",
    kept=("module.py", "config.json", "plan.json", "remap.json", "metrics.jsonl", "training.log", "timing.json"),
    contents=lambda registry: registry.library.needed_contents(),
    damaged=damaged_versions,
    directories=("knowledge", "journal"),
    garbage={
        "learners": Rule(
            candidates=_learners,
            why=_why_learner,
            locked=lambda home, path: exclusive(path.with_suffix(".lock"), what="the compilation cache"),
            remove=lambda view, path: remove_directory(path),
        )
    },
)
"""Heads, bundles, and runs that are or may be seeded from them need the experts' parameters."""
