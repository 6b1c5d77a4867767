"""The choice of a provider for each fluent that a target needs."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from flowrl_core.errors import PlanError
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Skill

__all__ = ["choices"]

_MOST = 256


def choices(knowledge: Knowledge, target: Skill, learned: Collection[str] | None) -> list[dict[str, str]]:
    """Return the ways (at most 256) to choose one provider for each fluent that the target needs at any depth.

    Args:
        knowledge: the skills.
        target: never a provider itself.
        learned: the skills that may be providers; None: all.

    Raises:
        PlanError: a needed fluent has no usable provider; says which fluent, and which skill needs it.
    """
    usable = {name for name in knowledge.skills if name != target.name and (learned is None or name in learned)}
    reachable = _reachable(knowledge, target, usable)
    founded = _founded(knowledge, reachable)
    options: dict[str, list[str]] = {}
    todo = [target]
    while todo:
        skill = todo.pop()
        for fluent in knowledge.needs(skill.name):
            if fluent not in options:
                options[fluent] = [name for name in knowledge.providers(fluent) if name in founded]
                if not options[fluent]:
                    raise _lacking(knowledge, target, usable, founded)
                todo.extend(knowledge.skills[name] for name in options[fluent])
    products = itertools.islice(itertools.product(*options.values()), _MOST)
    return [dict(zip(options, names, strict=True)) for names in products]


def _reachable(knowledge: Knowledge, target: Skill, usable: Collection[str]) -> set[str]:
    found: set[str] = set()
    todo = [target]
    while todo:
        skill = todo.pop()
        for fluent in knowledge.needs(skill.name):
            new = [name for name in knowledge.providers(fluent) if name in usable and name not in found]
            found.update(new)
            todo.extend(knowledge.skills[name] for name in new)
    return found


def _founded(knowledge: Knowledge, names: Collection[str]) -> set[str]:
    """Return the skills whose needs can be met from within `names`, down to skills that need nothing."""
    founded: set[str] = set()
    while True:
        new = {
            name
            for name in names
            if name not in founded
            and all(founded.intersection(knowledge.providers(fluent)) for fluent in knowledge.needs(name))
        }
        if not new:
            return founded
        founded |= new


def _lacking(knowledge: Knowledge, target: Skill, usable: Collection[str], founded: Collection[str]) -> PlanError:
    """Return why the target is unreachable: the deepest need without a provider, or the cycle of needs."""
    where = f"plan of {target.name}"
    path = [target.name]
    while True:
        skill = knowledge.skills[path[-1]]
        fluent = next(
            f for f in knowledge.needs(skill.name) if not any(name in founded for name in knowledge.providers(f))
        )
        known = knowledge.providers(fluent)
        below = [name for name in known if name in usable]
        if not below:
            problem = f"cannot, because {skill.name} needs {fluent}, and no usable skill gains it"
            remedy = f"Learn {' or '.join(known)} first" if known else f"Add a skill that gains {fluent}"
            return PlanError(where, problem, remedy)
        path.append(below[0])
        if below[0] in path[:-1]:
            circle = " needs ".join(path[path.index(below[0]) :])
            return PlanError(where, f"cannot, because {circle}", "Remove one of these requirements")
