"""Parses one skill's table of a knowledge base and checks it against the environment's vocabulary."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeGuard

from pydantic import BaseModel, TypeAdapter, ValidationError

from flowrl_core.errors import KnowledgeError, ProgramError
from flowrl_core.naming import TomlNaming
from flowrl_core.nearest import remedy_for
from flowrl_core.programs.language import check_condition, check_done, check_reward
from flowrl_core.programs.model import Program
from flowrl_core.quantities import Whole
from flowrl_core.refusals import refusal, shown
from flowrl_core.skills.constraints import (
    Broken,
    Part,
    amount_rule,
    ephemeral_rule,
    gain_rule,
    kind_rule,
    known_rule,
    learn_count_rule,
    name_rule,
)
from flowrl_core.skills.effects import parse_amount
from flowrl_core.skills.model import MAX_GUARDS, Guard, Linear, Skill
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["ParsedSkill", "parse_skill"]

_KEYS = (
    "description", "done", "reward", "target", "actions", "learn_count", "ephemeral",
    "gain", "requirements", "consumption", "guard", "guards", "begins_as", "training", "evaluation",
)  # fmt: skip


@dataclass(frozen=True)
class ParsedSkill:
    """A frozen record of a skill and the training and evaluation fields that it sets itself."""

    skill: Skill
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class _Table:
    """A frozen record of a skill's table and its location, for errors."""

    file: str
    name: str
    values: Mapping[str, Any]

    def refuse(self, field: str, problem: str, remedy: str) -> NoReturn:
        raise KnowledgeError(f"{self.file}: {self.name}: {field}", problem, remedy)

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Return the value of a key after checking its type; a key without a default is required."""
        value = self.values.get(key, default)
        if value is None:
            self.refuse(key, "is missing", f"Add {key} = ...")
        if kind is int and isinstance(value, float):
            with contextlib.suppress(ValidationError):
                value = _WHOLE.validate_python(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.refuse(key, f"must be {_TYPE_NAMES[kind]}, not {shown(value)}", _written(key, kind))
        return value

    def keep(self, broken: Broken | None) -> None:
        """Reject the table if a rule is broken."""
        if broken is not None:
            self.refuse(broken.field, broken.problem, broken.remedy)

    def one_of(self, field: str, value: Any, known: Collection[str]) -> str:
        self.keep(known_rule(field, value, known))
        return str(value)


_WHOLE = TypeAdapter(Whole)
_WRITTEN = {str: '"..."', int: "1", bool: "true", list: '["...", "..."]', dict: '{ "inv.wood" = 1 }'}
_GROUPS = {"training": "frames = 4000000", "evaluation": "threshold = 0.75"}
_GUARD: dict[str, Callable[[str, Vocabulary], Any]] = {
    "takes_over": check_condition,
    "gives_back": check_condition,
    "reward": check_reward,
}
_TYPE_NAMES = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


def parse_skill(file: str, name: str, values: Any, vocab: Vocabulary) -> ParsedSkill:
    """Return the skill that the table `[skills.NAME]` defines.

    Raises:
        KnowledgeError: names the first invalid field.
    """
    table = _Table(file, name, {key.replace("-", "_"): it for key, it in values.items()} if _is_table(values) else {})
    if not _is_table(values):
        table.refuse("skill", f"must be a table, not {values!r}", f"Write [skills.{name}]")
    table.keep(name_rule(name))
    if len(table.values) < len(values):
        table.refuse("skill", "has a key twice, once with - and once with _", "Remove one of them")
    for key in table.values:
        if key not in _KEYS:
            table.refuse(key, "unknown key", remedy_for(key, _KEYS, most=1))
    learn_count = table.get("learn_count", int, 1)
    table.keep(learn_count_rule(learn_count))
    target = table.values.get("target")
    skill = Skill(
        name=name,
        description=table.get("description", str),
        program=Program(_program(table, "done", vocab), _program(table, "reward", vocab)),
        gain=_effects(table, "gain", vocab, learn_count),
        requirements=_effects(table, "requirements", vocab, learn_count),
        consumption=_effects(table, "consumption", vocab, learn_count),
        ephemeral=table.get("ephemeral", bool, False),
        target=None if target is None else table.one_of("target", target, vocab.targets),
        actions=tuple(table.one_of("actions", action, vocab.actions) for action in table.get("actions", list, [])),
        learn_count=learn_count,
        guard=_guard(table, vocab) if "guard" in table.values else None,
        guards=_guards(table),
        begins_as=_beginning(table),
    )
    table.keep(gain_rule(skill.gain))
    table.keep(ephemeral_rule(skill.gain, skill.ephemeral, vocab))
    return ParsedSkill(skill, _group(table, "training", TrainingSpec), _group(table, "evaluation", EvaluationSpec))


def _written(key: str, kind: type) -> str:
    return f"Write {_GROUPS[key]} under its [{key}]" if key in _GROUPS else f"Write {key} = {_WRITTEN[kind]}"


def _is_table(values: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(values, dict)


def _program(table: _Table, key: Literal["done", "reward"], vocab: Vocabulary) -> str:
    check: Callable[[str, Vocabulary], Any] = check_done if key == "done" else check_reward
    text: str = table.get(key, str)
    try:
        check(text, vocab)
    except ProgramError as exc:
        raise KnowledgeError(f"{table.file}: {table.name}: {key}", exc.problem, exc.remedy) from exc
    return text


def _guard(table: _Table, vocab: Vocabulary) -> Guard:
    """Return the guard that the table `guard` declares."""
    values = table.get("guard", dict)
    for key in values:
        if key not in _GUARD:
            table.refuse(f"guard.{key}", "unknown key", remedy_for(key, _GUARD, most=1))
    for key, check in _GUARD.items():
        if key == "reward" and key not in values:
            continue
        if not isinstance(values.get(key), str):
            table.refuse(f"guard.{key}", "is missing or not a text", f'Write guard.{key} = "..."')
        try:
            check(values[key], vocab)
        except ProgramError as exc:
            raise KnowledgeError(f"{table.file}: {table.name}: guard.{key}", exc.problem, exc.remedy) from exc
    return Guard(**values)


def _guards(table: _Table) -> tuple[str, ...]:
    """Return the names in `guards`; whether each declares a guard is known when all tables have been read."""
    names = table.get("guards", list, [])
    if not all(isinstance(name, str) for name in names):
        table.refuse("guards", f"must be a list of skills, not {shown(names)}", 'Write guards = ["...", "..."]')
    if len(set(names)) < len(names) or table.name in names:
        problem = "names a skill twice" if len(set(names)) < len(names) else "names the skill itself"
        table.refuse("guards", problem, "Name each other skill once")
    if len(names) > MAX_GUARDS:
        table.refuse("guards", f"names {len(names)} skills", f"Name at most {MAX_GUARDS}")
    return tuple(names)


def _beginning(table: _Table) -> str | None:
    """Return the name in `begins_as`; whether there is such a skill is known when all tables have been read."""
    if "begins_as" not in table.values:
        return None
    name: str = table.get("begins_as", str)
    if name == table.name:
        table.refuse("begins_as", "names the skill itself", "Name another skill, or leave it out")
    return name


def _effects(table: _Table, part: Part, vocab: Vocabulary, learn_count: int) -> dict[str, Linear]:
    fluents = {fluent.name: fluent for fluent in vocab.fluents}
    effects = {}
    for name, text in table.get(part, dict, {}).items():
        fluent = fluents[table.one_of(part, name, fluents)]
        table.keep(kind_rule(part, fluent))
        try:
            amount = parse_amount(text)
        except ValueError as exc:
            table.refuse(f"{part}.{name}", str(exc), "Write a whole number, or a text such as '2*n + 1'")
        table.keep(amount_rule(part, fluent, amount, vocab, learn_count))
        effects[name] = amount
    return effects


def _group(table: _Table, key: Literal["training", "evaluation"], spec: type[BaseModel]) -> dict[str, Any]:
    values = table.get(key, dict, {})
    try:
        checked = spec.model_validate(values, strict=True)
    except ValidationError as exc:
        found = refusal(exc, TomlNaming(), model=spec)
        table.refuse(f"{key}.{found.field}", found.problem, found.remedy)
    return checked.model_dump(exclude_unset=True)
