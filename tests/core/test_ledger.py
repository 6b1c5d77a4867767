"""The ledger: states follow from facts alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.skill_states import Fact, derive

CORRIDOR = load_knowledge("corridor")


def test_the_states_of_a_campaign_under_way() -> None:
    facts = {
        "dig_a": Fact(learned=True),
        "goto_bench": Fact(executing=True),
        "make_n": Fact(failed=True, cause="verdict"),
    }
    assert derive(CORRIDOR, ["make_b", "make_n"], facts) == {
        "dig_a": "learned",
        "goto_bench": "submitted",
        "make_b": "blocked",
        "make_n": "failed",
    }


def test_dependants_of_a_failed_skill_are_blocked_by_it() -> None:
    facts = {"goto_bench": Fact(failed=True, cause="infrastructure")}
    assert derive(CORRIDOR, ["make_b"], facts) == {
        "dig_a": "ready",
        "goto_bench": "failed",
        "make_b": "blocked_by_failed",
    }


def test_a_skill_that_was_stopped_has_not_failed_and_blocks_nothing_for_good() -> None:
    facts = {"goto_bench": Fact(failed=True, cause="cancelled"), "make_n": Fact(failed=True, cause="rejected")}
    assert derive(CORRIDOR, ["make_b", "make_n"], facts) == {
        "dig_a": "ready",
        "goto_bench": "stopped",
        "make_b": "blocked",
        "make_n": "failed",
    }


@given(failed=st.booleans(), executing=st.booleans())
def test_what_was_learned_stays_learned(failed: bool, executing: bool) -> None:
    fact = Fact(learned=True, failed=failed, executing=executing)
    assert derive(CORRIDOR, ["dig_a"], {"dig_a": fact}) == {"dig_a": "learned"}


def test_a_new_attempt_outweighs_the_failure_before() -> None:
    fact = Fact(failed=True, cause="infrastructure", executing=True)
    assert derive(CORRIDOR, ["dig_a"], {"dig_a": fact}) == {"dig_a": "submitted"}


def test_facts_of_skills_that_no_target_needs_do_not_count() -> None:
    assert derive(CORRIDOR, ["dig_a"], {"make_b": Fact(failed=True, cause="verdict")}) == {"dig_a": "ready"}
