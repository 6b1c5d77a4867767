"""Knowledge bases: TOML files that define an environment's skills. Errors name file, skill and field."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowrl_core.errors import InputError, KnowledgeError
from flowrl_core.nearest import remedy_for
from flowrl_core.programs.registers import COUNTS
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.skills.skill_table import parse_skill
from flowrl_core.text import folded
from flowrl_core.toml_files import read_toml
from flowrl_core.vocabulary.catalogue import ENVIRONMENTS, environment, vocabulary
from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["Knowledge", "in_order", "is_file_name", "load_knowledge", "needs_of", "shipped"]

_TOP_KEYS = ("env", "skills")


@dataclass(frozen=True)
class Knowledge:
    """A frozen record of the skills of one environment.

    Attributes:
        env: the environment's name.
        source: the file that defines them, as named in errors.
        vocabulary: the names that the environment provides to skills.
        skills: by name, in file order.
        training: by skill, the TrainingSpec fields it sets for its own runs.
        evaluation: the same for EvaluationSpec.
        proposed: the skills that come from accepted proposals.
    """

    env: str
    source: str
    vocabulary: Vocabulary
    skills: Mapping[str, Skill]
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    proposed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("skills", "training", "evaluation"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def skill(self, name: str) -> Skill:
        """Return the skill of that name.

        Raises:
            InputError: there is none; the remedy suggests the nearest names.
        """
        if name not in self.skills:
            raise InputError("skill", f"{self.source} has no skill {name!r}", remedy_for(name, self.skills))
        return self.skills[name]

    def settings(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the fields that a skill sets for its own runs, as arguments of `specs.resolve`."""
        return {"training": dict(self.training.get(name, {})), "evaluation": dict(self.evaluation.get(name, {}))}

    def providers(self, fluent: str) -> tuple[str, ...]:
        """Return the names of the skills that gain the fluent, in file order."""
        return self._providers.get(fluent, ())

    def needs(self, name: str) -> tuple[str, ...]:
        """Return the fluents that a skill requires or consumes, except requirements of 0 (places it does not leave)."""
        return self._needs[name]

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """The cache of plans by target skill; see `planner.plan_of`."""
        return {}

    @cached_property
    def fluents(self) -> Mapping[str, Fluent]:
        """The base fluents of the vocabulary by name."""
        return MappingProxyType({fluent.name: fluent for fluent in self.vocabulary.fluents})

    @cached_property
    def _providers(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for skill in self.skills.values():
            for fluent in skill.gain:
                found.setdefault(fluent, []).append(skill.name)
        return {fluent: tuple(names) for fluent, names in found.items()}

    @cached_property
    def _needs(self) -> Mapping[str, tuple[str, ...]]:
        return {name: needs_of(skill) for name, skill in self.skills.items()}


def needs_of(skill: Skill) -> tuple[str, ...]:
    """Return the fluents that a skill requires or consumes, by the rule of `Knowledge.needs`."""
    amounts = [*skill.requirements.items(), *skill.consumption.items()]
    return tuple(dict.fromkeys(fluent for fluent, amount in amounts if any(map(amount.at, COUNTS))))


def in_order(graph: Mapping[str, Iterable[str]], *, source: str) -> tuple[str, ...]:
    """Return the skills of a graph (skill -> its prerequisites) in topological order, prerequisites first.

    Raises:
        KnowledgeError: the graph is cyclic; the message names the cycle.
    """
    try:
        return tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as exc:
        # graphlib lists each node before the one that needs it.
        cycle = list(reversed(exc.args[1]))
        where = f"{source}: {cycle[0]}: requirements"
        raise KnowledgeError(where, f"cyclic: {' needs '.join(cycle)}", "Remove one of these requirements") from exc


def shipped(env: str) -> Path:
    """Return the file of the knowledge base shipped with an environment.

    Raises:
        InputError: there is no such environment, or it ships none.
    """
    dashed = env.replace("_", "-")
    nothing = f"no knowledge base is shipped for {env!r}"
    try:
        path = environment(dashed if dashed in ENVIRONMENTS else env).knowledge
    except InputError as exc:
        raise InputError("knowledge", f"{nothing}: {exc.problem}", f"Name a TOML file. {exc.remedy}") from exc
    if path is None:
        raise InputError("knowledge", nothing, "Name a TOML file")
    return path


def is_file_name(source: str) -> bool:
    """Whether the text names a knowledge base file rather than a shipped knowledge base."""
    return source.endswith(".toml") or "/" in source


def load_knowledge(source: str | Path, vocab: Vocabulary | None = None) -> Knowledge:
    """Return the fully validated knowledge base of a TOML file, or the shipped one of that name.

    Args:
        source: a file, or the name of an environment that ships a knowledge base.
        vocab: the names that skills may use; by default the vocabulary of the environment that the file names.

    Raises:
        KnowledgeError: an invalid field (file, skill and field named), a cycle, or a requirement that no skill gains.
        InputError: neither a file nor a shipped knowledge base.
    """
    path = shipped(source) if isinstance(source, str) and not is_file_name(source) else Path(source)
    data = _read(path)
    file = _shown(path)
    for key in data:
        if key not in _TOP_KEYS:
            raise KnowledgeError(f"{file}: {key}", "unknown key", f"Known keys: {', '.join(_TOP_KEYS)}")
    vocab = _vocabulary(file, data.get("env"), vocab)
    tables = data.get("skills")
    if not isinstance(tables, dict) or not tables:
        raise KnowledgeError(f"{file}: skills", "there are no skills", "Add a table [skills.NAME] for each")
    _refuse_names_that_look_alike(file, tables)
    parsed = [parse_skill(file, name, table, vocab) for name, table in tables.items()]
    knowledge = Knowledge(
        env=vocab.env,
        source=file,
        vocabulary=vocab,
        skills={p.skill.name: p.skill for p in parsed},
        training={p.skill.name: p.training for p in parsed if p.training},
        evaluation={p.skill.name: p.evaluation for p in parsed if p.evaluation},
    )
    _refuse_what_nothing_provides(knowledge)
    _refuse_what_guards_nothing(knowledge)
    _refuse_unknown_beginnings(knowledge)
    _refuse_cycles(knowledge)
    return knowledge


def _shown(path: Path) -> str:
    """Return the file's name for errors; `knowledge.toml`, which each environment has, comes with its folder."""
    return f"{path.parent.name}/{path.name}" if path.name == "knowledge.toml" else path.name


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except InputError as exc:
        raise KnowledgeError(exc.field, exc.problem, exc.remedy) from exc


def _vocabulary(file: str, env: Any, vocab: Vocabulary | None) -> Vocabulary:
    where = f"{file}: env"
    if not isinstance(env, str):
        raise KnowledgeError(where, "is missing or not a text", 'Start the file with env = "..."')
    if vocab is None:
        try:
            return vocabulary(env)
        except InputError as exc:
            raise KnowledgeError(where, exc.problem, exc.remedy) from exc
    if env != vocab.env:
        raise KnowledgeError(where, f"is {env!r}, not {vocab.env!r}", "Use a knowledge base for that environment")
    return vocab


def _refuse_names_that_look_alike(file: str, names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other != name:
            problem = f"{name!r} and {other!r} differ only in case or Unicode form"
            raise KnowledgeError(f"{file}: {name}: name", problem, "Rename one of them")


def _refuse_what_nothing_provides(knowledge: Knowledge) -> None:
    for skill in knowledge.skills.values():
        for fluent in knowledge.needs(skill.name):
            if not knowledge.providers(fluent):
                part = "requirements" if fluent in skill.requirements else "consumption"
                where = f"{knowledge.source}: {skill.name}: {part}"
                raise KnowledgeError(where, f"no skill gains {fluent}", f"Add a skill that gains {fluent}")


def _refuse_what_guards_nothing(knowledge: Knowledge) -> None:
    able = [skill.name for skill in knowledge.skills.values() if skill.guard is not None]
    for skill in knowledge.skills.values():
        for name in skill.guards:
            if name not in able:
                is_known = name in knowledge.skills
                problem = f"{name!r} declares no guard" if is_known else f"there is no skill {name!r}"
                remedy = f"Give it a table `guard`, or name one of: {', '.join(able) or 'none declares one'}"
                raise KnowledgeError(f"{knowledge.source}: {skill.name}: guards", problem, remedy)


def _refuse_unknown_beginnings(knowledge: Knowledge) -> None:
    for skill in knowledge.skills.values():
        if skill.begins_as is not None and skill.begins_as not in knowledge.skills:
            where = f"{knowledge.source}: {skill.name}: begins_as"
            problem = f"there is no skill {skill.begins_as!r}"
            raise KnowledgeError(where, problem, remedy_for(skill.begins_as, knowledge.skills))


def _refuse_cycles(knowledge: Knowledge) -> None:
    in_order(
        {
            skill.name: tuple(
                dict.fromkeys(
                    [
                        *(name for fluent in knowledge.needs(skill.name) for name in knowledge.providers(fluent)),
                        *skill.helpers,
                    ]
                )
            )
            for skill in knowledge.skills.values()
        },
        source=knowledge.source,
    )
