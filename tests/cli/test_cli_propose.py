"""`flowrl propose`, and what the other commands say of proposals."""

from __future__ import annotations

import json

import pytest
from corridor_proposals import answer, proposed
from model_server import ModelServer, fault, say

from flowrl_cli.views.live import Narrator
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

CORRIDOR = ("--env", "corridor", "--target", "inv.b")
MODEL = ("--frontier.kind", "model")


def asking(model, *more):
    return ("propose", *CORRIDOR, *MODEL, "--model", model.model, *more)


def test_a_dry_run_shows_question_answer_and_gates_and_leaves_only_the_journal(home, flowrl_here):
    with ModelServer([say(answer(proposed("dig_a"), proposed("make_b")))]) as model:
        done = flowrl_here(*asking(model, "--dry-run"))
        again = flowrl_here(*asking(model, "--dry-run"))
        assert len(model.requests) == 1, "the second answer comes from the journal"
    assert done.returncode == 0, done.stderr
    for text in (
        "inv.b",
        "Rules of the game",
        "at most",
        '"name": "dig_a"',
        "passed",
        "refused by reachable",
        "unprovided",
    ):
        assert text in done.stdout, text
    assert [path.name for path in home.iterdir()] == ["journal"]
    assert again.stdout == done.stdout


def test_a_round_is_recorded_and_the_status_tells_of_it(home, flowrl_here):
    with ModelServer([say(answer(proposed("dig_a"), proposed("make_b")))]) as model:
        done = flowrl_here(*asking(model, "--frontier.prices", f"{model.model}=1000/2000"))
    assert done.returncode == 0, done.stderr
    assert "accepted: dig_a" in done.stdout and "refused: make_b" in done.stdout
    with Registry.open(Home(home)) as registry:
        assert set(registry.skills.of("default")) == {"dig_a"}
    shown = flowrl_here("status").stdout
    for text in ("dig_a", "ready", "make_b", "unprovided", "1 of 200 requests", "0.0250 US dollars"):
        assert text in shown, (text, shown)
    found = json.loads(flowrl_here("status", "--json").stdout)
    assert [one["state"] for one in found["proposals"]] == ["accepted", "refused"]
    assert found["proposals"][1]["refusals"][0]["code"] == "unprovided"
    spent = {"requests": 1, "input_tokens": 11, "output_tokens": 7, "cost": 0.025, "unpriced": 0}
    assert found["spending"] == {**spent, "limits": {"requests": 200, "tokens": 2_000_000, "cost": 0.0}}


def test_who_looks_on_is_told_of_each_proposal_once(home, flowrl_here):
    with ModelServer([say(answer(proposed("dig_a"), proposed("make_b")))]) as model:
        flowrl_here(*asking(model))
    with Registry.open(Home(home)) as registry:
        records = registry.proposals.of("default")
    narrator = Narrator()
    assert list(narrator.tell((), records[:1])) == [], "what was there before is not told"
    (line,) = narrator.tell((), records)
    assert line.startswith("round 1: make_b refused [reachable: unprovided]")
    assert list(narrator.tell((), records)) == []


def test_a_campaign_takes_no_more_skills_than_it_may(home, flowrl_here):
    (home.parent / "c.toml").write_text("[limits]\nmax_skills = 1\n")
    with ModelServer([say(answer(proposed("dig_a"), proposed("goto_bench")))]) as model:
        done = flowrl_here(*asking(model, "--config", "c.toml"))
    assert "accepted: dig_a" in done.stdout and "refused: goto_bench" in done.stdout
    assert "[interest: enough]" in flowrl_here("status").stdout


def test_a_dry_run_of_a_campaign_is_booked_to_it_and_records_no_round(home, flowrl_here):
    with ModelServer([say(answer(proposed("dig_a"))), say(answer(proposed("goto_bench")))]) as model:
        assert flowrl_here(*asking(model)).returncode == 0
        done = flowrl_here(*asking(model, "--dry-run"))
        assert done.returncode == 0
        assert "no proposal is recorded for campaign default; the requests count" in done.stdout
        assert len(model.requests) == 2
    with Registry.open(Home(home)) as registry:
        assert [one.name for one in registry.proposals.of("default")] == ["dig_a"]
        assert registry.requests.spending("default").requests == 2


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_proposal_for_a_campaign_of_another_environment_is_refused_unasked(home, flowrl_here, refused, more):
    with Registry.open(Home(home)) as registry:
        spec = parse_campaign(campaign="default", targets=["collect_wood"])
        registry.campaigns.record(spec, load_knowledge(spec.env).skills)
    with ModelServer([say(answer())]) as model:
        said = ("--env: campaign 'default' was started with 'craftax-classic', not 'corridor'", "another campaign name")
        refused(flowrl_here(*asking(model, *more)), *said)
        assert model.requests == []
        assert flowrl_here(*asking(model, "--campaign", "other", "--dry-run")).returncode == 1
    with Registry.open(Home(home)) as registry:
        assert registry.requests.spending("default").requests == 0
        assert [one.name for one in registry.campaigns.all()] == ["default"]


def test_a_model_that_refuses_the_key_is_told_in_one_line(home, flowrl_here):
    with ModelServer([fault(status=401)]) as model:
        done = flowrl_here(*asking(model, "--dry-run"))
    assert done.returncode == 1
    assert "unauthorized" in done.stderr and len(done.stderr.splitlines()) == 1


def test_nothing_sound_is_exit_code_1(home, flowrl_here):
    with ModelServer([say(answer())]) as model:
        done = flowrl_here(*asking(model, "--dry-run"))
    assert done.returncode == 1
    assert "nothing_proposed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*MODEL,), ("frontier.model", "openai:")),
        ((*MODEL, "--frontier.model", "gpt"), ("frontier.model", "openai:gpt")),
        ((*MODEL, "--frontier.model", "opnai:gpt"), ("frontier.model", "openai")),
        ((*MODEL, "--frontier.model", "m@http://ann:secret@host/v1"), ("frontier.model", "FLOWRL_MODEL_KEY")),
        ((*MODEL, "--frontier.model", "m@http://h/v1", "--frontier.max-cost", "1"), ("--frontier.max-cost", "prices")),
        ((*MODEL, "--frontier.model", "m@http://h/v1", "--frontier.prices", "m=cheap"), ("frontier.prices", "m=cheap")),
        ((*MODEL, "--frontier.model", "m@http://h/v1", "--frontier.max-requests", "0"), ("frontier.max-requests",)),
        (("--frontier.model", "openai:gpt-5"), ("frontier.kind", "hybrid")),
        (("--target", "inv.bb"), ("--target", "inv.b")),
    ],
)
def test_a_frontier_that_cannot_be_is_refused_and_leaves_nothing(home, flowrl_here, refused, arguments, said):
    refused(flowrl_here("campaign", *CORRIDOR, *arguments), *said)
    assert not home.exists()


def test_a_goal_that_the_knowledge_base_cannot_bring_names_the_way_out(home, flowrl_here, refused):
    (home.parent / "small.toml").write_text(
        'env = "corridor"\n[skills.dig_a]\ndescription = "Dig"\ndone = "since.a >= n"\nreward = "gained.a"\n'
        'gain = { "inv.a" = "n" }\n'
    )
    refused(flowrl_here("campaign", *CORRIDOR, "--knowledge", "small.toml"), "inv.b", "hybrid")
    assert not home.exists()
