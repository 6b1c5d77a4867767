"""Campaigns that a language model grows, without Prefect: what is asked, learned from failures, and paid."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
from corridor_proposals import answer, proposed
from corridor_runs import KNOWLEDGE, TRAINING, start
from model_campaigns import NAME, grow, grow_in_child, new_home, one_round, spec_for
from model_server import ModelServer, say

from flowrl_core.errors import BudgetError
from flowrl_core.stages.proposals.context import ProposalContext, initial_knowledge, read_context
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

pytestmark = pytest.mark.long


def test_a_rerun_with_the_journal_asks_nothing_and_learns_the_same_skills(tmp_path, basics):
    texts = [answer(proposed("dig_a")), answer(), answer(proposed("make_b"), proposed("goto_bench"))]
    with ModelServer([say(text) for text in texts]) as model:
        home = new_home(tmp_path / "first", basics)
        first = grow(home, spec_for(model.url, "inv.b"))
        asked = len(model.requests)
        again = new_home(tmp_path / "again", basics)
        again.journal.symlink_to(home.journal)
        second = grow(again, spec_for(model.url, "inv.b", journal="replay"))
        assert (asked, len(model.requests)) == (3, 3)
    learned = dict.fromkeys(["dig_a", "goto_bench", "make_b"], "learned")
    assert first.frontier.states == second.frontier.states == learned
    assert first.briefing == second.briefing
    with Registry.open(again) as registry:
        assert registry.requests.spending(NAME).requests == 0


def test_a_skill_that_failed_comes_back_revised_with_what_its_episodes_did(tmp_path, basics):
    """The right idea with wrong amounts: nine b at once, out of nothing."""
    wrong = proposed("make_b", consumption=[], learn_count=9, difficulty="easy")
    right = proposed("make_b", difficulty="hard")
    texts = [answer(proposed("goto_bench"), proposed("dig_a"), wrong), answer(right)]
    with ModelServer([say(text) for text in texts]) as model:
        spec = spec_for(model.url, "inv.b")
        spec = spec.model_copy(update={"training": TRAINING.model_copy(update={"frames": 20_000})})
        context = grow(new_home(tmp_path / "home", basics), spec)
        told = model.requests[1].texts[-1][1]
    assert context.frontier.by == {"inv.b": "make_b"} and context.frontier.states["make_b"] == "learned"
    assert [one.state for one in context.history] == ["accepted"] * 4
    assert context.history[-1].revises == context.history[2].identity
    assert [one.frames for one in context.history[2:]] == [10_000, 40_000]
    assert "timed out" in told and '"gained.b"' in told and "fired" in told


def test_a_kill_between_an_answer_and_its_record_repeats_one_request_which_is_booked(tmp_path, monkeypatch):
    monkeypatch.delenv("FLOWRL_REGISTRY_URL", raising=False)
    home = Home(tmp_path)
    with ModelServer([say(answer(proposed("make_b")))]) as model:
        spec = spec_for(model.url, "inv.b", fruitless_rounds=1)
        killed = start(grow_in_child, home, spec, report=tmp_path / "killed.json", crash_at="after_model_answer")
        assert killed.wait() == -signal.SIGKILL
        context = grow(home, spec)
        assert [(one.name, one.state) for one in context.history] == [("make_b", "refused")]
        assert len(model.requests) == 2
    with Registry.open(home) as registry:
        assert registry.requests.spending(NAME).requests == 2


def test_a_name_that_is_refused_again_and_again_is_not_looked_at_for_some_rounds(tmp_path):
    bad, good = answer(proposed("make_b")), answer(proposed("make_b", requirements=[]))
    with ModelServer([say(bad), say(bad), say(good), say(answer()), say(bad)]) as model:
        context = grow(Home(tmp_path), spec_for(model.url, "inv.b", cool_down=3, fruitless_rounds=5))
    codes = [one.refusals[0].code for one in context.history]
    assert codes == ["unprovided", "unprovided", "cooling_down", "nothing_proposed", "unprovided"]
    cooling = context.history[2].refusals[0].sentence
    assert "make_b" in cooling and "near.bench" in cooling, "it says why"


def test_the_same_duplicate_twenty_times_costs_twenty_short_rounds_and_no_training(tmp_path):
    duplicate = say(answer(proposed("dig_a", name="mine_an_a")))
    base = replace(KNOWLEDGE, skills={"dig_a": KNOWLEDGE.skills["dig_a"]})
    with ModelServer([duplicate]) as model:
        context = grow(Home(tmp_path), spec_for(model.url, "inv.p", kind="hybrid", fruitless_rounds=20), base)
        assert len(model.requests) == 20, "no answer was taken from the journal: each was another draw"
    assert {one.refusals[0].code for one in context.history} == {"duplicate", "cooling_down"}
    assert context.fruitless == 20 and context.added == frozenset()


def test_plans_are_made_again_only_when_a_proposal_is_accepted(tmp_path):
    with ModelServer([say(answer(proposed("dig_a")))]) as model, Registry.open(Home(tmp_path)) as registry:
        spec = spec_for(model.url, "inv.b")
        one_round(Home(tmp_path), registry, spec)
        base = initial_knowledge(KNOWLEDGE, spec)
        first = read_context(registry, NAME, spec, base)
        second = read_context(registry, NAME, spec, base, before=first)
        assert second.knowledge is first.knowledge and first.knowledge.proposed == {"dig_a"}
        assert read_context(registry, NAME, spec, base, before=ProposalContext(spec, base)).knowledge.proposed == {
            "dig_a"
        }


def test_what_may_be_spent_holds_over_restarts(tmp_path):
    home = Home(tmp_path)
    with ModelServer([say(answer())]) as model:
        price = [f"scripted@{model.url}=1000/1000"]
        for limit in ({"max_requests": 3}, {"max_cost": 0.06, "prices": price}, {"max_tokens": 100}):
            for _ in range(2):
                with pytest.raises(BudgetError, match=next(iter(limit))):
                    grow(home, spec_for(model.url, "inv.b", fruitless_rounds=50, **limit))
            assert len(model.requests) == 3


def test_what_is_refused_late_takes_with_it_what_needs_it(tmp_path):
    """There is room for two of three, and the judge dislikes the first."""
    texts = [answer(proposed("make_b"), proposed("goto_bench"), proposed("dig_a"))]
    texts += [json.dumps({"worth_learning": name != "goto_bench", "why": "No."}) for name in ("make_b", "goto_bench")]
    for judge, limit, refused in ((False, 2, {"make_b": "enough"}), (True, 9, {"make_b": "needs_refused"})):
        home = Home(tmp_path / str(limit))
        with ModelServer([say(text) for text in [*texts, texts[1]]]) as model, Registry.open(home) as registry:
            spec = spec_for(model.url, "inv.b", judge=judge)
            spec = spec.model_copy(update={"limits": spec.limits.model_copy(update={"max_skills": limit})})
            rows = one_round(home, registry, spec)
        late = {row.name: row.refusals[0].code for row in rows if row.refusals}
        assert {name: late[name] for name in refused} == refused
        assert [row.name for row in rows if row.state == "accepted"] == (
            ["dig_a"] if judge else ["goto_bench", "dig_a"]
        )


def test_the_judge_refuses_what_is_not_worth_learning(tmp_path):
    verdict = json.dumps({"worth_learning": False, "why": "It leads nowhere."})
    with ModelServer([say(answer(proposed("dig_a"))), say(verdict)]) as model:
        context = grow(Home(tmp_path), spec_for(model.url, "inv.b", fruitless_rounds=1, judge=True))
        assert len(model.requests) == 2
    (record,) = context.history
    finding = record.refusals[0]
    assert (record.state, finding.gate, finding.sentence) == ("refused", "interest", "It leads nowhere.")
