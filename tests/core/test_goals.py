"""Targets that are named by what they bring, and knowledge that proposals make grow."""

from __future__ import annotations

import dataclasses

import pytest

from flowrl_core.errors import InputError
from flowrl_core.proposals.accepted import budget, grown, is_wanting
from flowrl_core.skills.frontier import frontier
from flowrl_core.skills.goals import check_provided, check_target, is_reached
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.model import Linear
from flowrl_core.skills.skill_states import Fact
from flowrl_core.specs.skill import TrainingSpec

CORRIDOR = load_knowledge("corridor")
MAKE_B, MAKE_C = CORRIDOR.skills["make_b"], CORRIDOR.skills["make_c"]


def only(*names):
    return dataclasses.replace(CORRIDOR, skills={name: CORRIDOR.skills[name] for name in names})


SMALL = only("dig_a", "goto_bench")
LEARNED = {"dig_a": "learned", "goto_bench": "learned"}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("inv.bb", "inv.b"),
        ("dist.mine", "not a fluent that a skill can gain"),
        ("make_bb", "make_b"),
        ("fly", "inv."),
        ("MAKE_B", "Did you mean make_b?"),
        ("make-b", "Did you mean make_b?"),
        (" make_b\u200b ", "Did you mean make_b?"),
        ("make_b, inv.c", "is a list. Name each target separately: make_b and inv.c"),
    ],
)
def test_a_target_that_is_neither_a_skill_nor_can_be_brought_is_refused_with_the_nearest(target, said):
    with pytest.raises(InputError, match="targets") as refused:
        check_target(target, CORRIDOR.skills, CORRIDOR.vocabulary)
    assert said in str(refused.value)
    check_target("make_b", CORRIDOR.skills, CORRIDOR.vocabulary)
    check_target("inv.b", CORRIDOR.skills, CORRIDOR.vocabulary)


def test_a_goal_is_reached_by_whatever_skill_brings_it():
    found = frontier(CORRIDOR, ["inv.b", "make_c"], {})
    assert found.by == {"inv.b": "make_b", "make_c": "make_c"} and found.open == ()
    assert is_reached(CORRIDOR, "inv.b", {"make_b"}) and not is_reached(CORRIDOR, "inv.b", {"make_c"})
    assert is_reached(CORRIDOR, "make_c", {"make_c"})


def test_a_goal_prefers_a_learned_skill_and_avoids_one_that_failed():
    other = dataclasses.replace(MAKE_B, name="craft_b", consumption={"inv.a": Linear(2)})
    both, _ = grown(CORRIDOR, {"craft_b": other})
    assert frontier(both, ["inv.b"], {}).by["inv.b"] == "craft_b"  # as long as the other, first by name
    assert frontier(both, ["inv.b"], {"make_b": "learned"}).by["inv.b"] == "make_b"
    assert frontier(both, ["inv.b"], {"craft_b": "failed"}).by["inv.b"] == "make_b"


def test_a_knowledge_base_alone_must_bring_what_is_asked_of_it():
    check_provided(CORRIDOR, ["inv.b", "make_c"])
    with pytest.raises(InputError, match=r"no skill .* gains inv\.b"):
        check_provided(SMALL, ["inv.b"])


def test_proposals_are_needed_while_a_target_is_open_and_no_longer():
    step, _ = grown(SMALL, {"make_c": MAKE_C})
    found = frontier(step, ["inv.b"], LEARNED)
    assert (found.open, found.ready) == (("inv.b",), ("make_c",))
    whole, _ = grown(SMALL, {"make_c": MAKE_C, "make_b": MAKE_B})
    assert frontier(whole, ["inv.b"], LEARNED).ready == ("make_b",)
    failed = frontier(whole, ["inv.b"], {**LEARNED, "make_b": "failed"})
    assert (failed.open, failed.ready) == (("inv.b",), ("make_c",))


def test_a_proposal_that_has_lost_its_plan_does_not_count_until_it_has_one_again():
    needs_c = dataclasses.replace(MAKE_B, consumption={"inv.c": Linear(1)})
    whole, stale = grown(SMALL, {"make_c": MAKE_C, "make_b": needs_c})
    assert whole.proposed == {"make_c", "make_b"} and stale == {}
    revised = dataclasses.replace(MAKE_C, gain={"inv.d": Linear(1)})
    left, stale = grown(SMALL, {"make_c": revised, "make_b": needs_c})
    assert left.proposed == {"make_c"} and "inv.c" in stale["make_b"]


def test_a_model_is_asked_when_a_target_is_open_and_nothing_waits():
    step, _ = grown(SMALL, {"make_c": MAKE_C})
    assert not is_wanting(frontier(CORRIDOR, ["inv.b"], {}), {}), "there is a way"
    assert is_wanting(frontier(SMALL, ["inv.b"], {}), {})
    assert not is_wanting(frontier(step, ["inv.b"], {}), {}), "what was proposed is ready, or waits"
    training = {"dig_a": "submitted", "goto_bench": "submitted"}
    assert not is_wanting(frontier(step, ["inv.b"], training), {}), "it waits for what trains: the frontier is blocked"
    assert is_wanting(frontier(step, ["inv.b"], {**LEARNED, "make_c": "submitted"}), {}), "others train"


@pytest.mark.parametrize(
    ("cause", "is_asked"), [("verdict", True), ("rejected", True), ("infrastructure", False), ("cancelled", False)]
)
def test_trouble_that_is_no_verdict_is_no_reason_for_other_skills(cause, is_asked):
    found = frontier(CORRIDOR, ["inv.b"], {**LEARNED, "make_b": "failed"})
    assert found.open == ("inv.b",)
    assert is_wanting(found, {"make_b": Fact(failed=True, cause=cause)}) is is_asked


def test_frames_are_chosen_by_difficulty():
    training = TrainingSpec(frames=1_000)
    assert [budget(difficulty, training) for difficulty in ("easy", "medium", "hard")] == [500, 1_000, 2_000]
