"""Proposals in the registry: rounds recorded once and whole, and the skills that a campaign means because of them."""

from dataclasses import replace
from typing import Any

import pytest
from registry_steps import SKILLS, begin, learn, make_skill, make_spec, start

from flowrl_core.errors import ConflictError, InputError
from flowrl_core.programs.model import Program
from flowrl_core.proposals.model import Examination, Finding, Proposal
from flowrl_core.skills.model import Skill
from flowrl_core.storage.records.proposals import Examined
from flowrl_core.storage.registry import Registry

REFUSAL = Finding("program", "never_true", "done can never be true; compare within the range.", "0 of 64 episodes")
MALFORMED = Finding("answer", "malformed", "The answer is no JSON.")
MODEL = {"model": "openai:m"}


def sound(skill: Skill, frames: int = 1_000) -> Examined:
    proposal = Proposal(skill, "hard", "it leads further")
    return Examined(Examination(proposal, proposal), frames)


def refused(skill: Skill) -> Examined:
    return Examined(Examination(Proposal(skill), Proposal(skill), refusals=(REFUSAL,)), None)


def other(name: str) -> Skill:
    """Another definition of the name."""
    return make_skill(name, program=Program(f"ach.{name}", f"2 * new_ach.{name}"))


def fail(registry: Registry, name: str) -> None:
    attempt = begin(registry, name)
    registry.skill_runs.fail(attempt.run, "did not learn")
    registry.attempts.end(attempt.id, "verdict")


def test_a_round_is_told_as_it_was_recorded(registry: Registry) -> None:
    proposed = Proposal(replace(make_skill("Stone!"), description="Dig"), "easy", "because")
    repaired = replace(proposed, skill=replace(make_skill("stone"), description="Dig"))
    repair = Finding("name", "spelling", "The name was changed.", "Stone! -> stone")
    round_one = [
        Examined(Examination(proposed, repaired, repairs=(repair,)), 7_000),
        refused(make_skill("gem")),
        Examined(None, None, (MALFORMED,)),
    ]
    accepted, second, third = registry.proposals.record_round("default", round_one, **MODEL, call="k1")
    assert (accepted.state, accepted.name, accepted.frames) == ("accepted", "stone", 7_000)
    assert (accepted.proposal, accepted.repaired, accepted.repairs) == (proposed, repaired, (repair,))
    assert (accepted.refusals, accepted.revises, accepted.model, accepted.call) == ((), None, "openai:m", "k1")
    assert registry.skills.get("default", "stone").identity == accepted.identity == repaired.skill.identity("corridor")
    assert (second.state, second.name, second.refusals, second.identity) == ("refused", "gem", (REFUSAL,), None)
    assert (third.state, third.name, third.proposal, third.refusals) == ("refused", "", None, (MALFORMED,))
    (fourth,) = registry.proposals.record_round("default", [refused(make_skill("gem"))], **MODEL, call="k2")
    assert registry.proposals.of("default") == [accepted, second, third, fourth]
    assert [record.round for record in registry.proposals.of("default")] == [1, 1, 1, 2]
    assert set(registry.skills.of("default")) == {*SKILLS, "stone"}


def test_a_sound_proposal_that_is_refused_besides_is_no_skill(registry: Registry) -> None:
    full = Finding("interest", "enough", "The campaign has as many skills as it may have.")
    (record,) = registry.proposals.record_round(
        "default", [replace(sound(make_skill("stone")), refusals=(full,))], **MODEL
    )
    assert record.state == "refused" and record.refusals == (full,) and "stone" not in registry.skills.of("default")


def test_a_round_of_one_call_is_recorded_once_and_without_a_call_each_time(registry: Registry) -> None:
    first = registry.proposals.record_round("default", [sound(make_skill("stone"))], **MODEL, call="k1")
    assert registry.proposals.record_round("default", [sound(make_skill("stone"))], **MODEL, call="k1") == first
    assert registry.proposals.record_round("default", [refused(make_skill("gem"))], **MODEL, call="k1") == first
    assert registry.proposals.of("default") == first
    for number in (2, 3):
        (record,) = registry.proposals.record_round("default", [refused(make_skill("gem"))], **MODEL)
        assert record.round == number
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    (elsewhere,) = registry.proposals.record_round("other", [sound(make_skill("stone"))], **MODEL, call="k1")
    assert elsewhere.round == 1 and registry.proposals.of("other") == [elsewhere]


def test_a_name_that_did_not_fail_is_not_taken_and_nothing_of_the_round_is_written(registry: Registry) -> None:
    twice = [sound(make_skill("stone")), sound(other("stone"))]
    learn(registry, ["wood"], {0: ("a", 50)})
    begin(registry, "table")
    before = registry.skills.of("default")
    for wrong in (twice, *([sound(make_skill("stone")), sound(other(name))] for name in SKILLS)):
        with pytest.raises(ConflictError, match="is already a skill of the campaign"):
            registry.proposals.record_round("default", wrong, **MODEL)
    assert registry.proposals.of("default") == [] and registry.skills.of("default") == before


def test_a_revised_definition_takes_the_place_of_the_one_that_failed(registry: Registry) -> None:
    (first,) = registry.proposals.record_round("default", [sound(make_skill("stone"))], **MODEL)
    fail(registry, "stone")
    (second,) = registry.proposals.record_round("default", [sound(other("stone"))], **MODEL)
    assert second.revises == first.identity != second.identity == registry.skills.get("default", "stone").identity
    assert not registry.skills.facts("default")["stone"].failed
    start(registry, make_spec())
    assert registry.skills.get("default", "stone").identity == second.identity, "the newest is what is meant"
    assert registry.skill_runs.of(first.identity or "")[0].verdict == "failed"


@pytest.mark.parametrize("how", ["verdict", "rejected"])
def test_a_definition_that_failed_and_is_proposed_again_is_forgiven(registry: Registry, how: Any) -> None:
    registry.proposals.record_round("default", [sound(make_skill("stone"))], **MODEL)
    if how == "verdict":
        fail(registry, "stone")
    else:
        registry.attempts.end(begin(registry, "stone").id, "rejected", "too silly")
    assert registry.skills.facts("default")["stone"].cause == how
    (again,) = registry.proposals.record_round("default", [sound(make_skill("stone"), 9_000)], **MODEL)
    assert again.revises == again.identity and not registry.skills.facts("default")["stone"].failed
    fail(registry, "stone")
    registry.proposals.record_round("default", [sound(other("stone"))], **MODEL)
    fail(registry, "stone")
    registry.proposals.record_round("default", [sound(make_skill("stone"))], **MODEL)
    assert not registry.skills.facts("default")["stone"].failed, "also where another definition was tried in between"
    begin(registry, "stone")


def test_accepted_proposals_stay_the_skills_of_a_campaign_that_starts_again(registry: Registry) -> None:
    records = registry.proposals.record_round(
        "default", [sound(make_skill("stone")), refused(make_skill("gem"))], **MODEL
    )
    learned = learn(registry, ["stone"], {0: ("a", 50)})
    start(registry, make_spec(targets=["stone"], limits={"max_skills": 3}, frontier={"kind": "model"}))
    assert set(registry.skills.of("default")) == {*SKILLS, "stone"} and learned
    assert registry.skills.facts("default")["stone"].learned
    assert registry.campaigns.get("default").targets == ("pickaxe", "stone")
    spec = registry.campaigns.get("default").spec
    assert (spec.limits.max_skills, spec.frontier.kind) == (3, "model")
    # A knowledge base that has the name wins.
    registry.campaigns.record(make_spec(), SKILLS | {"stone": other("stone")})
    assert (
        registry.skills.get("default", "stone").identity == other("stone").identity("corridor") != records[0].identity
    )
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    assert set(registry.skills.of("other")) == set(SKILLS)


def test_a_skill_that_was_proposed_can_be_retried(registry: Registry) -> None:
    registry.proposals.record_round("default", [sound(make_skill("stone"))], **MODEL)
    fail(registry, "stone")
    start(registry, make_spec(retry=["stone"]))
    assert not registry.skills.facts("default")["stone"].failed


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ("inv.aa", r"'inv.aa' is not a fluent that a skill can gain. Did you mean inv.a"),
        ("dist.mine", "is not a fluent that a skill can gain"),
    ],
)
def test_goals_may_be_targets_where_a_skill_could_gain_them(registry: Registry, goal: str, said: str) -> None:
    registry.campaigns.record(make_spec(targets=["inv.c", "near.bench"]), SKILLS)
    assert registry.campaigns.get("default").targets == ("pickaxe", "inv.c", "near.bench")
    with pytest.raises(InputError, match=said) as error:
        registry.campaigns.record(make_spec(targets=[goal]), SKILLS)
    assert error.value.field == "targets"


def test_names_of_a_strangers_making_are_stored(registry: Registry) -> None:
    odd = replace(make_skill("a\0b\ud800"), description="\0 \ud800 ☃")
    (record,) = registry.proposals.record_round("default", [refused(odd)], **MODEL)
    assert record.name == "a?b?" and record.proposal is not None and record.proposal.skill == odd


def test_a_round_without_rows_and_an_answer_without_a_reason_are_mistakes(registry: Registry) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        registry.proposals.record_round("default", [], **MODEL)
    with pytest.raises(ValueError, match="says why"):
        Examined(None)
    with pytest.raises(InputError, match="there is no campaign 'nobody'"):
        registry.proposals.of("nobody")
