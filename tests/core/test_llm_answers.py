"""The form of a model's answer: what it takes, what it refuses, and the schema that servers make a grammar of."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.llm.answers import Judgement, ProposedSkills, proposed_skills, to_proposals
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.model import Linear, Skill

GOLDEN = Path(__file__).parents[1] / "golden" / "prompts"

EFFECT = {"fluent": "inv.a", "per_n": 1, "fixed": 0}
SKILL = {
    "name": "dig_a",
    "description": "Dig at the mine",
    "why": "All else is made of a",
    "requirements": [],
    "consumption": [],
    "gain": [EFFECT],
    "ephemeral": False,
    "target": "mine",
    "learn_count": 2,
    "done": "since.a >= n",
    "reward": "gained.a",
    "difficulty": "easy",
}


def read(skill: dict[str, Any], form: type[ProposedSkills] = ProposedSkills) -> ProposedSkills:
    return form.model_validate_json(json.dumps({"skills": [skill]}))


def as_answer(skill: Skill) -> dict[str, Any]:
    def effects(amounts: Any) -> list[dict[str, Any]]:
        return [{"fluent": name, "per_n": a.per_n, "fixed": a.fixed} for name, a in amounts.items()]

    return {
        **SKILL,
        **{part: effects(getattr(skill, part)) for part in ("requirements", "consumption", "gain")},
        "name": skill.name,
        "description": skill.description,
        "ephemeral": skill.ephemeral,
        "target": skill.target or "",
        "learn_count": skill.learn_count,
        "done": skill.program.done,
        "reward": skill.program.reward,
    }


@pytest.mark.parametrize("form", [ProposedSkills, Judgement, proposed_skills(4, CRAFTAX_CLASSIC)])
def test_the_schema_is_as_before(form: type[ProposedSkills]) -> None:
    """Renewed by RENEW_GOLDEN=1, as the texts of test_llm_briefing.py are."""
    schema = form.model_json_schema()
    is_led = "enum" in schema.get("$defs", {}).get("ProposedEffect", {}).get("properties", {}).get("fluent", {})
    path = GOLDEN / f"{form.__name__}{'_craftax' if is_led else ''}.schema.json"
    if os.environ.get("RENEW_GOLDEN"):
        path.write_text(json.dumps(schema, indent=1) + "\n")
    assert schema == json.loads(path.read_text())


@pytest.mark.parametrize("form", [ProposedSkills, Judgement, proposed_skills(1, CORRIDOR)])
def test_the_schema_is_strict_and_everything_in_it_is_bounded(form: type[ProposedSkills]) -> None:
    bounds = {"string": "maxLength", "array": "maxItems", "integer": "maximum", "boolean": "type"}

    def check(node: dict[str, Any]) -> None:
        assert not {"anyOf", "oneOf", "allOf", "patternProperties"} & set(node)
        if node.get("type") == "object":
            assert node["additionalProperties"] is False and node["required"] == list(node["properties"])
            for inner in node["properties"].values():
                assert inner.get("description")
                check(inner)
        elif "$ref" not in node:
            assert bounds[node["type"]] in node or "enum" in node
            check(node.get("items", {"$ref": ""}))

    schema = form.model_json_schema()
    for node in (schema, *schema.get("$defs", {}).values()):
        check(node)


@pytest.mark.parametrize("env", ["corridor", "craftax-classic"])
def test_every_shipped_skill_can_be_proposed(env: str) -> None:
    knowledge = load_knowledge(env)
    form = proposed_skills(1, knowledge.vocabulary)
    for skill in knowledge.skills.values():
        (proposal,) = to_proposals(read(as_answer(skill), form))
        # A proposal does not choose actions, and declares neither guards nor a beginning.
        assert replace(proposal.skill, actions=()) == replace(skill, actions=(), guard=None, guards=(), begins_as=None)
        assert list(proposal.skill.gain) == list(skill.gain)


def test_an_answer_becomes_proposals() -> None:
    (proposal,) = to_proposals(read({**SKILL, "target": ""}))
    assert proposal.skill.gain == {"inv.a": Linear(1, 0)} and proposal.skill.target is None
    assert (proposal.difficulty, proposal.why) == ("easy", "All else is made of a")
    assert to_proposals(ProposedSkills(skills=[])) == []


WRONG = {
    "text for a number": ({"learn_count": "3"}, "learn_count"),
    "true for a number": ({"learn_count": True}, "learn_count"),
    "a fraction": ({"learn_count": 1.5}, "learn_count"),
    "a number too large": ({"learn_count": 10}, "learn_count"),
    "a number for true": ({"ephemeral": 1}, "ephemeral"),
    "null": ({"target": None}, "target"),
    "another key": ({"actions": []}, "actions"),
    "another difficulty": ({"difficulty": "Easy"}, "difficulty"),
    "no name": ({"name": ""}, "name"),
    "a long name": ({"name": "a" * 65}, "name"),
    "a long description": ({"description": "a" * 301}, "description"),
    "a long program": ({"done": "a" * 1001}, "done"),
    "many effects": ({"gain": [{**EFFECT, "fluent": f"inv.{i}"} for i in range(9)]}, "gain"),
    "a fluent twice": ({"gain": [EFFECT, EFFECT]}, "'inv.a' is named more than once"),
    "an amount as text": ({"gain": [{**EFFECT, "fixed": "1"}]}, "gain.0.fixed"),
    "a negative amount": ({"gain": [{**EFFECT, "fixed": -1}]}, "gain.0.fixed"),
    "effects as a table": ({"gain": {"inv.a": "n"}}, "gain"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("form", [ProposedSkills, proposed_skills(4, CORRIDOR)], ids=["plain", "led"])
def test_what_does_not_fit_the_form_is_refused(
    change: dict[str, Any], message: str, form: type[ProposedSkills]
) -> None:
    with pytest.raises(ValidationError, match=message):
        read({**SKILL, **change}, form)


def test_each_field_must_be_there() -> None:
    for key in SKILL:
        with pytest.raises(ValidationError, match="Field required"):
            read({name: value for name, value in SKILL.items() if name != key})


def test_more_skills_than_were_asked_for_are_refused() -> None:
    answer = json.dumps({"skills": [SKILL, SKILL]})
    assert len(proposed_skills(2).model_validate_json(answer).skills) == 2
    with pytest.raises(ValidationError, match="at most 1"):
        proposed_skills(1).model_validate_json(answer)
    for most in (0, 9):
        with pytest.raises(ValueError, match="1 to 8"):
            proposed_skills(most)


def test_a_form_is_made_once_and_lists_the_names_without_refusing_others() -> None:
    form = proposed_skills(2, CORRIDOR)
    assert form is proposed_skills(2, CORRIDOR) and form.__name__ == "ProposedSkills"
    schema = form.model_json_schema()["$defs"]
    names = schema["ProposedEffect"]["properties"]["fluent"]["enum"]
    assert "inv.p" in names and "near.bench" in names and "dist.mine" not in names
    assert schema["ProposedSkill"]["properties"]["target"]["enum"] == ["", *CORRIDOR.targets]
    # The gates refuse one skill for it; the form would refuse all of the answer.
    read({**SKILL, "target": "moon", "gain": [{**EFFECT, "fluent": "inv.moon"}]}, form)
