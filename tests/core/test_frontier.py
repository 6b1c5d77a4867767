"""The frontier: what is ready, what waits, and for what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrl_core.errors import InputError, KnowledgeError
from flowrl_core.skills.frontier import frontier, needed, prerequisites
from flowrl_core.skills.knowledge import Knowledge, in_order, load_knowledge

CRAFTAX = load_knowledge("craftax-classic")
TARGETS = ("make_stone_pickaxe", "make_wood_sword", "collect_sapling", "place_furnace")
NEEDED = {*TARGETS, "collect_wood", "place_table", "make_wood_pickaxe", "collect_stone"}
ALL = load_knowledge("craftax-classic").skills


def test_only_what_a_target_needs_is_looked_at_prerequisites_first() -> None:
    needed = frontier(CRAFTAX, TARGETS, {}).needed
    assert set(needed) == NEEDED and len(needed) == len(NEEDED)
    for name, before in prerequisites(CRAFTAX, TARGETS).items():
        assert all(needed.index(other) < needed.index(name) for other in before)


def test_a_fresh_campaign_starts_with_what_needs_nothing_the_critical_path_first() -> None:
    found = frontier(CRAFTAX, TARGETS, {})
    assert found.ready == ("collect_wood", "collect_sapling")
    assert set(found.blocked) == NEEDED - {"collect_wood", "collect_sapling"}
    assert found.done == found.failed == found.blocked_by_failed == found.submitted == ()


def test_a_learned_skill_makes_its_dependants_ready() -> None:
    learned = dict.fromkeys(("collect_wood", "place_table"), "learned")
    found = frontier(CRAFTAX, TARGETS, learned)
    assert found.done == ("collect_wood", "place_table")
    assert found.ready == ("make_wood_pickaxe", "collect_sapling", "make_wood_sword")
    learned |= dict.fromkeys(("make_wood_pickaxe", "collect_stone"), "learned")
    assert set(frontier(CRAFTAX, TARGETS, learned).ready) == set(TARGETS)


def test_what_is_under_way_is_not_offered_again() -> None:
    found = frontier(CRAFTAX, TARGETS, {"collect_wood": "submitted"})
    assert found.submitted == ("collect_wood",) and found.ready == ("collect_sapling",)
    assert "place_table" in found.blocked


def test_dependants_of_a_failed_skill_are_blocked_by_it_and_its_siblings_are_not() -> None:
    states = dict.fromkeys(("collect_wood", "place_table"), "learned") | {"make_wood_pickaxe": "failed"}
    found = frontier(CRAFTAX, TARGETS, states)
    assert found.failed == ("make_wood_pickaxe",)
    assert set(found.blocked_by_failed) == {"collect_stone", "make_stone_pickaxe", "place_furnace"}
    assert set(found.ready) == {"make_wood_sword", "collect_sapling"}
    assert found.blocked == ()


def guarded(*guards: str) -> Knowledge:
    """The knowledge with a coal that lists guards: drinking and eating, which need nothing."""
    skills = {name: replace(skill, guards=(), begins_as=None) for name, skill in CRAFTAX.skills.items()}
    return replace(CRAFTAX, skills=skills | {"collect_coal": replace(skills["collect_coal"], guards=guards)})


READY_FOR_COAL = dict.fromkeys(("collect_wood", "place_table", "make_wood_pickaxe"), "learned")


def test_a_skill_waits_for_its_guards_while_they_may_be_learned() -> None:
    known = guarded("collect_drink", "eat_cow")
    found = frontier(known, ["collect_coal"], READY_FOR_COAL)
    assert found.ready == ("collect_drink", "eat_cow") and found.blocked == ("collect_coal",)
    assert found.needed.index("eat_cow") < found.needed.index("collect_coal")
    found = frontier(known, ["collect_coal"], READY_FOR_COAL | {"collect_drink": "learned", "eat_cow": "submitted"})
    assert found.ready == () and found.blocked == ("collect_coal",)


def test_a_guard_that_failed_holds_nobody_up() -> None:
    known = guarded("collect_drink", "eat_cow")
    found = frontier(known, ["collect_coal"], READY_FOR_COAL | {"collect_drink": "learned", "eat_cow": "failed"})
    assert found.ready == ("collect_coal",) and found.failed == ("eat_cow",) and found.blocked_by_failed == ()
    assert prerequisites(known, ["collect_coal"])["collect_coal"] == tuple(READY_FOR_COAL), "guards are none"


def test_guards_of_prerequisites_are_needed_too() -> None:
    known = guarded("collect_drink")
    assert "collect_drink" in frontier(known, ["make_iron_pickaxe"], {}).needed


def test_a_skill_waits_for_what_it_begins_as_while_that_may_be_learned() -> None:
    skills = guarded().skills
    coal = replace(skills["collect_coal"], begins_as="collect_sapling")
    known = replace(CRAFTAX, skills=skills | {"collect_coal": coal})
    found = frontier(known, ["collect_coal"], READY_FOR_COAL)
    assert found.ready == ("collect_sapling",) and found.blocked == ("collect_coal",)
    for state in ("learned", "failed"):
        assert frontier(known, ["collect_coal"], READY_FOR_COAL | {"collect_sapling": state}).ready == ("collect_coal",)


def test_derived_states_given_as_known_are_found_anew() -> None:
    assert frontier(CRAFTAX, TARGETS, dict.fromkeys(NEEDED, "ready")) == frontier(CRAFTAX, TARGETS, {})


def test_an_unknown_target_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match="make_stone_pickaxe"):
        frontier(CRAFTAX, ["make_ston_pickaxe"], {})


def test_a_cycle_is_named() -> None:
    with pytest.raises(
        KnowledgeError, match="mine.toml: .*: requirements: cyclic: (a needs b needs a|b needs a needs b)"
    ):
        in_order({"a": ["b"], "b": ["a"], "c": ["a"]}, source="mine.toml")


STATES = st.sampled_from(["learned", "failed", "submitted"])


@settings(max_examples=40, deadline=None)
@given(
    targets=st.lists(st.sampled_from(sorted(ALL)), min_size=1, unique=True),
    states=st.dictionaries(st.sampled_from(sorted(ALL)), STATES),
)
def test_every_needed_skill_is_in_one_group_and_ready_means_ready(targets: list[str], states: dict[str, str]) -> None:
    found = frontier(CRAFTAX, targets, states)
    groups = (found.ready, found.blocked, found.done, found.blocked_by_failed, found.failed, found.submitted)
    assert sorted(name for group in groups for name in group) == sorted(found.needed)
    assert list(found.states) == list(found.needed) and set(targets) <= set(found.needed)
    before = needed(CRAFTAX, targets)
    for name in found.ready:
        assert all(states.get(other) == "learned" for other in before[name])
    for name in found.blocked_by_failed:
        assert any(states.get(other) == "failed" or other in found.blocked_by_failed for other in before[name])
    waiting = {*found.ready, *found.blocked, *found.submitted}
    for name in found.blocked:
        helpers = set(CRAFTAX.skills[name].helpers)
        assert any(states.get(other) != "learned" for other in before[name]) or not helpers.isdisjoint(waiting)


@settings(max_examples=40, deadline=None)
@given(states=st.dictionaries(st.sampled_from(sorted(ALL)), STATES))
def test_a_campaign_is_never_stuck_without_a_reason(states: dict[str, str]) -> None:
    found = frontier(CRAFTAX, sorted(ALL), states)
    if found.blocked:
        assert found.ready or found.submitted
