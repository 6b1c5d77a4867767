"""One skill's table of a knowledge base, parsed and checked against the environment's vocabulary."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ValidationError

from flowrl_core.errors import KnowledgeError, ProgramError
from flowrl_core.programs.language import check_done, check_reward
from flowrl_core.skills.effects import COUNTS, parse_amount
from flowrl_core.skills.model import Fluent, Linear, Program, Skill, Vocabulary
from flowrl_core.specs import EvaluationSpec, TrainingSpec

__all__ = ["ParsedSkill", "parse_skill", "spelled_alike"]

_KEYS = (
    "description", "done", "reward", "target", "actions", "learn_count", "ephemeral",
    "gain", "requirements", "consumption", "training", "evaluation",
)  # fmt: skip
# A name becomes part of directories, run names, tags and SKILL.FIELD=VALUE.
_NAME = re.compile(r"\w[\w-]*")
_NAME_BYTES = 64

_Part = Literal["gain", "requirements", "consumption"]
# Vitals, distances and levels change by themselves or are read only: no plan can count on them.
_KINDS: Mapping[_Part, Collection[str]] = {
    "gain": ("count", "tier", "flag", "place"),
    "requirements": ("count", "tier", "flag", "place"),
    "consumption": ("count",),
}


@dataclass(frozen=True)
class ParsedSkill:
    """A skill and the fields of its training and evaluation that it sets itself."""

    skill: Skill
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class _Table:
    """A skill's table with its place in the file, for errors."""

    file: str
    name: str
    values: Mapping[str, Any]

    def refuse(self, field: str, problem: str, remedy: str) -> NoReturn:
        raise KnowledgeError(f"{self.file}: {self.name}: {field}", problem, remedy)

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, of the right type; without a default it must be there."""
        value = self.values.get(key, default)
        if value is None:
            self.refuse(key, "is missing", f"Add {key} = ...")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.refuse(key, f"must be {_TYPE_NAMES[kind]}, not {value!r}", "Correct the value")
        return value

    def one_of(self, field: str, value: Any, known: Collection[str]) -> str:
        if not isinstance(value, str) or value not in known:
            near = difflib.get_close_matches(str(value), known, n=3, cutoff=0.5)
            self.refuse(
                field,
                f"{value!r} is not known",
                f"Did you mean {', '.join(near)}?" if near else f"Known: {_few(known)}",
            )
        return value


_TYPE_NAMES = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


def spelled_alike(name: str) -> str:
    """A form that is the same for names which differ only in case or Unicode form."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def parse_skill(file: str, name: str, values: Any, vocab: Vocabulary) -> ParsedSkill:
    """The skill that the table `[skills.NAME]` defines.

    Raises:
        KnowledgeError: the first field that is wrong.
    """
    table = _Table(file, name, values if isinstance(values, dict) else {})
    if not isinstance(values, dict):
        table.refuse("skill", f"must be a table, not {values!r}", f"Write [skills.{name}]")
    if not _NAME.fullmatch(name) or len(name.encode()) > _NAME_BYTES:
        table.refuse("name", f"{name!r} cannot name a skill", f"Use at most {_NAME_BYTES} letters, digits, '_' and '-'")
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            table.refuse(key, "unknown key", f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(_KEYS)}")
    learn_count = table.get("learn_count", int, 1)
    if learn_count not in COUNTS:
        table.refuse("learn_count", f"must be from {COUNTS[0]} to {COUNTS[-1]}, not {learn_count}", "Correct the value")
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
    )
    _check_as_a_whole(table, skill, vocab)
    return ParsedSkill(skill, _group(table, "training", TrainingSpec), _group(table, "evaluation", EvaluationSpec))


def _program(table: _Table, key: Literal["done", "reward"], vocab: Vocabulary) -> str:
    check: Callable[[str, Vocabulary], Any] = check_done if key == "done" else check_reward
    text: str = table.get(key, str)
    try:
        check(text, vocab)
    except ProgramError as exc:
        raise KnowledgeError(f"{table.file}: {table.name}: {key}", exc.problem, exc.remedy) from exc
    return text


def _effects(table: _Table, part: _Part, vocab: Vocabulary, learn_count: int) -> dict[str, Linear]:
    fluents = {fluent.name: fluent for fluent in vocab.fluents}
    effects = {}
    for name, text in table.get(part, dict, {}).items():
        fluent = fluents[table.one_of(part, name, fluents)]
        where = f"{part}.{name}"
        if fluent.kind not in _KINDS[part]:
            table.refuse(where, f"a {fluent.kind} cannot stand here", f"Only {' or '.join(_KINDS[part])} can")
        try:
            amount = parse_amount(text)
        except ValueError as exc:
            table.refuse(where, str(exc), "Write a whole number, or a text such as '2*n + 1'")
        _check_amount(table, part, fluent, amount, min(vocab.capacity, fluent.high), learn_count)
        effects[name] = amount
    return effects


def _check_amount(table: _Table, part: _Part, fluent: Fluent, amount: Linear, most: int, learn_count: int) -> None:
    where = f"{part}.{fluent.name}"
    amounts = [amount.at(n) for n in COUNTS]
    # Naming a place with amount 0 says: not needed, but not left either.
    least = 0 if part == "requirements" and fluent.kind == "place" else 1
    if min(amounts) < 0 or max(amounts) < least:
        table.refuse(where, f"is {min(amounts)} at its least", f"Use amounts of {least} or more")
    if fluent.kind in ("flag", "place") and (amount.per_n or amount.fixed > 1):
        table.refuse(where, "is true or not, so its amount does not depend on n", "Use 1")
    if amount.at(learn_count) > most:
        problem = f"is {amount.at(learn_count)} for n = {learn_count}, and no more than {most} can be held"
        table.refuse(where, problem, "Lower the amount or learn_count")


def _check_as_a_whole(table: _Table, skill: Skill, vocab: Vocabulary) -> None:
    if not skill.gain:
        table.refuse("gain", "is empty", 'Say what the skill brings, such as gain = {"inv.wood" = "n"}')
    places = {fluent.name for fluent in vocab.fluents if fluent.kind == "place"}
    brought = sorted(places & set(skill.gain))
    if brought and not skill.ephemeral:
        problem = f"must be true, since {brought[0]} is lost when another step moves on"
        table.refuse("ephemeral", problem, "Add ephemeral = true")
    if skill.ephemeral and not brought:
        table.refuse("ephemeral", "is true, but the skill gains no place", "Remove it, or gain a near.* fluent")


def _group(table: _Table, key: Literal["training", "evaluation"], spec: type[BaseModel]) -> dict[str, Any]:
    values = table.get(key, dict, {})
    try:
        checked = spec.model_validate(values, strict=True)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] != "extra_forbidden":
            table.refuse(f"{key}.{name}", f"{first['msg']} (got {first['input']!r})", "Correct the value")
        near = difflib.get_close_matches(name, spec.model_fields, n=1, cutoff=0.5)
        known = ", ".join(spec.model_fields)
        table.refuse(f"{key}.{name}", "unknown field", f"Did you mean {near[0]}?" if near else f"Known fields: {known}")
    return checked.model_dump(exclude_unset=True)


def _few(known: Collection[str]) -> str:
    listed = ", ".join(list(known)[:12])
    return listed if len(known) <= 12 else f"{listed}, ..."
