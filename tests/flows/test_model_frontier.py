"""Campaigns whose skills a language model proposes, over real HTTP, through the real Prefect server and workers."""

from __future__ import annotations

import subprocess
import time

from corridor_proposals import answer, bad_habits, farmable, proposed
from flow_runs import end_of, skill_runs, spec, start, until
from model_server import ModelServer, fault, say
from prefect.blocks.system import Secret

from flowrl_core.skills.knowledge import shipped
from flowrl_core.specs.campaign import FrontierSpec, LimitsSpec

KEY = "sk-of-the-tests-0123456789"


def frontier(url, **changes):
    return FrontierSpec(**{"kind": "model", "model": f"scripted@{url}", "timeout_s": 30.0, **changes})


def in_turn(*texts, last=lambda: None):
    """A script that gives one text after the other, then empty answers. Before the last text it calls `last`."""

    def script(request, number):
        if number == len(texts) - 1:
            last()
        return say(texts[number] if number < len(texts) else answer())

    return script


def test_a_model_with_twelve_bad_habits_still_reaches_the_target(server, registry):
    habits = bad_habits()
    texts = [answer(proposed("goto_bench"), proposed("dig_a")), *(text for text, _ in habits.values()), farmable()]
    answered_at = []

    def when_a_skill_trains():
        until(lambda: any(server.home.runs.glob("bad-habits/*/metrics.jsonl")), "the training of a skill")
        answered_at.append(time.time())

    with ModelServer(in_turn(*texts, last=when_a_skill_trains)) as model:
        wanted = spec(
            "bad-habits",
            "inv.b",
            frontier=frontier(model.url, fruitless_rounds=30, answer_retries=0, cool_down=0),
            limits=LimitsSpec(max_parallel=2),
        )
        run = start(registry, wanted)
        state = end_of(run)
    assert state.is_completed(), state.message
    records = registry.proposals.of("bad-habits")
    accepted = [one for one in records if one.state == "accepted"]
    assert [one.name for one in accepted] == ["goto_bench", "dig_a", "make_b"]
    refused = {one.round: one.refusals[0] for one in records if one.refusals}
    assert [refused[number].code for number in sorted(refused)] == [code for _, code in habits.values()]
    assert all(finding.sentence for finding in refused.values())
    assert accepted[-1].repairs and accepted[-1].repaired.skill.program.reward == "gained.b"
    runs = [(run.start_time.timestamp(), run.end_time.timestamp()) for run in skill_runs(registry, "bad-habits")]
    assert any(begun < answered_at[0] < ended for begun, ended in runs), "the model answered while nothing trained"
    assert registry.requests.spending("bad-habits").requests == len(model.requests) == len(texts)


def test_a_campaign_that_a_model_cannot_help_ends_and_says_why_and_never_spends_more_than_it_may(server, registry):
    with ModelServer(in_turn()) as model:
        hopeless = spec("hopeless", "inv.p", frontier=frontier(model.url, fruitless_rounds=2, max_requests=3))
        for said, requests in (("2 rounds without an accepted proposal", 2), ("frontier.max_requests", 3)):
            state = end_of(start(registry, hopeless))
            assert state.name == "TargetsMissed" and said in state.message
            assert registry.requests.spending("hopeless").requests == len(model.requests) == requests
    assert [one.round for one in registry.proposals.of("hopeless")] == [1, 2, 3]
    assert skill_runs(registry, "hopeless") == []


def test_a_hybrid_uses_what_is_known_and_a_fallback_answers_for_a_model_that_does_not(server, registry):
    """The knowledge base lacks make_c; the first model's key is refused, which is no skill's failure.

    The key is in a Prefect Secret block, and nowhere else: in no file of the home, the server's database among them.
    """
    Secret(value=KEY).save("flowrl-model-key", overwrite=True)
    lacking = server.home.knowledge_file("without-c.toml")
    lacking.parent.mkdir(exist_ok=True)
    lacking.write_text(_without("make_c"))
    echo = fault(status=401, body=f"Incorrect API key provided: {KEY}")
    with ModelServer([echo]) as broken, ModelServer(in_turn(answer(proposed("make_c")))) as model:
        wanted = spec(
            "hybrid",
            "inv.c",
            knowledge="without-c.toml",
            frontier=frontier(broken.url, kind="hybrid", fallbacks=[f"scripted@{model.url}"]),
        )
        state = end_of(start(registry, wanted))
        assert state.is_completed(), state.message
        assert len(broken.requests) == 1 and len(model.requests) == 1
        assert model.requests[0].headers["authorization"] == f"Bearer {KEY}"
    (record,) = registry.proposals.of("hybrid")
    assert (record.name, record.state, record.model) == ("make_c", "accepted", f"scripted@{model.url}")
    assert registry.skills.facts("hybrid")["make_c"].learned
    assert {"server.log", "registry.sqlite", "prefect.db"} <= {path.name for path in server.home.root.rglob("*")}
    assert any(server.home.journal.iterdir())
    assert _files_with(KEY, server.home.root) == []
    assert _files_with("make_c", server.home.journal) != []


def test_a_model_that_is_away_fails_no_skill(server, registry):
    with ModelServer(lambda *_: fault(status=401)) as broken:
        state = end_of(start(registry, spec("away", "inv.b", frontier=frontier(broken.url))))
    assert state.name == "TargetsMissed" and "unauthorized" in state.message
    assert registry.proposals.of("away") == []
    assert not any(fact.failed for fact in registry.skills.facts("away").values())


def _files_with(text, directory):
    """The files that hold the text.

    Read by another process: SQLite's locks of this one would be gone as soon as it closed such a file.
    """
    found = subprocess.run(["grep", "-rlaF", text, str(directory)], capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.splitlines()


def _without(skill):
    """The corridor's knowledge base without a skill and what needs it, and without actions, which no model proposes."""
    lines = [line for line in shipped("corridor").read_text().splitlines() if not line.startswith("actions")]
    tables = "\n".join(lines).split("\n[skills.")
    return "\n[skills.".join(table for table in tables if not table.startswith((f"{skill}]", "make_p")))
