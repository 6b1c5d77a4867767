"""One home with campaigns of two environments: each has its own skills and experts, and every command reads both."""

import dataclasses
import json
import os
import time

import pytest

from flowrl_cli.commands.experts import experts
from flowrl_cli.commands.status import status
from flowrl_core.errors import InputError
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.upkeep.housekeeping import find_garbage, remove_garbage
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.records.skill_runs import Look
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

TARGETS = {"corridor": "dig_a", "craftax-classic": "collect_wood"}
ACTIONS = {"corridor": 18, "craftax-classic": 17}


def learn(home, registry, env, number):
    """Start a campaign of the environment and end a run of its target as learned; the content of its expert."""
    knowledge, skill = load_knowledge(env), TARGETS[env]
    registry.campaigns.record(parse_campaign(env=env, campaign=env, targets=[skill]), knowledge.skills)
    identity = registry.skills.get(env, skill).identity
    attempt = registry.skill_runs.begin(env, identity)
    expert = registry.library.allocate(identity, observation_size=9, num_actions=ACTIONS[env], width=64).global_index
    sealed = {"plan": make_plan(knowledge, skill), "remap": {expert: 0}, "config": SkillConfig()}
    registry.skill_runs.seal(attempt.run, **sealed, seeds={expert: None})
    registry.skill_runs.record_look(attempt.run, Look(1000, 100, 90, 0.8, 0.0125, 0.9, steps=(0.9,)))
    content = put(home, {"number": number})
    results, bundle = [ExpertResult(expert, content, 500, None)], BundleFacts(0.9, 0.8, 100, 0.75)
    ending = {"verdict": "learned", "run_frames": 1000, "policy": "most_frames"}
    registry.skill_runs.commit(attempt.run, results=results, bundle=bundle, **ending)
    registry.attempts.end(attempt.id, "verdict")
    return content


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLOWRL_REGISTRY_URL", raising=False)
    return Home.from_environment()


@pytest.fixture
def contents(home):
    import numpy as np

    with Registry.open(home) as registry:
        return {env: learn(home, registry, env, np.float32(i)) for i, env in enumerate(TARGETS)}


def test_status_tells_of_the_campaign_that_is_named_whatever_its_environment(contents, capsys):
    for env, target in TARGETS.items():
        status(env, as_json=True)
        said = json.loads(capsys.readouterr().out)
        assert said["env"] == env and said["damaged"] == []
        assert {row["name"] for row in said["skills"] if row["state"] == "learned"} == {target}
        status(env)
        assert f"Campaign {env} ({env})" in capsys.readouterr().out


def test_experts_lists_those_of_all_environments(contents, capsys):
    experts(as_json=True)
    said = json.loads(capsys.readouterr().out)["experts"]
    found = [(one["env"], one["skill"], one["num_actions"]) for one in said]
    assert found == [(env, TARGETS[env], ACTIONS[env]) for env in TARGETS]
    experts()
    assert set(TARGETS) <= set(capsys.readouterr().out.split())


def test_a_name_that_two_environments_have_is_chosen_by_its_index(home, contents, capsys):
    env, name = "craftax-classic", TARGETS["corridor"]
    with Registry.open(home) as registry:
        skill = dataclasses.replace(load_knowledge(env).skills[TARGETS[env]], name=name)
        registry.campaigns.record(parse_campaign(env=env, campaign="same", targets=[name]), {name: skill})
        identity = registry.skills.get("same", name).identity
        own = registry.library.allocate(identity, observation_size=9, num_actions=ACTIONS[env], width=64).global_index
    with pytest.raises(InputError, match=rf"2 environments.*by its index: 0 \(corridor\), {own} \({env}\)"):
        experts(name)
    for index, of in {0: "corridor", own: env}.items():
        experts(str(index), as_json=True)
        assert json.loads(capsys.readouterr().out)["env"] == of


def test_a_campaign_of_one_environment_goes_on_beside_the_other(home, contents):
    with Registry.open(home) as registry:
        for env in TARGETS:
            again = registry.campaigns.record(parse_campaign(env=env, campaign=env), load_knowledge(env).skills)
            assert again.env == env
            assert all(record.env == env for record in registry.skills.of(env).values())
        assert {campaign.env for campaign in registry.campaigns.all()} == set(TARGETS)


def test_housekeeping_keeps_the_experts_of_both(home, contents):
    useless = put(home, {"number": 0})
    for path in home.versions.iterdir():
        os.utime(path, (time.time() - 3 * 86_400,) * 2)
    with Registry.open(home) as registry:
        found = find_garbage(home, registry, keep_days=30)
        assert [one.path.name for one in found] == [useless]
        remove_garbage(home, registry, found, keep_days=30)
    assert [float(get(home, content)["number"]) for content in contents.values()] == [0.0, 1.0]
