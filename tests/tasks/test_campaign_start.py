"""A campaign's start: one opening of the registry, one new start, and nothing left where it is refused."""

import asyncio
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Cancelled, Crashed, Running

from flowrl_core.errors import InputError
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.campaign import CampaignSpec, parse_campaign
from flowrl_core.storage.layout import HOME_VARIABLE, URL_VARIABLE, Home
from flowrl_core.storage.registry import Registry
from tasks.campaign.campaign_loop import open_campaign

SKILLS = load_knowledge(shipped("corridor")).skills
MODEL = {"kind": "model", "model": "openai:gpt-4.1"}


def make_spec(**changes):
    return parse_campaign(**{"campaign": "one", "env": "corridor", "targets": ["dig_a"]} | changes)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def deployment(server) -> UUID:
    """Runs of it are never executed: no worker serves its pool."""

    async def create():
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="unserved", type="process"))
            flow_id = await client.create_flow_from_name("stand-in")
            return await client.create_deployment(
                flow_id, "default", work_pool_name="unserved", entrypoint="none.py:none"
            )

    return asyncio.run(create())


def opened(spec):
    """The campaign as its loop has it once it is open."""

    async def work():
        async with open_campaign(spec) as loop:
            return loop.campaign

    return asyncio.run(work())


REFUSED = {
    "no campaign to go on with": ({"targets": []}, "targets"),
    "an unknown target": ({"targets": ["dig_z"]}, "targets"),
    "an unknown skill to retry": ({"retry": ["dig_z"]}, "retry"),
    "a knowledge base of another environment": ({"env": "craftax-classic", "knowledge": "corridor"}, "env"),
    "a setup that learns nothing": ({"evaluation": {"episodes": 5}}, "evaluation.episodes"),
}


@pytest.mark.parametrize(("changes", "field"), REFUSED.values(), ids=REFUSED)
def test_a_first_campaign_that_is_refused_leaves_nothing(home, changes, field):
    with pytest.raises(InputError) as refused:
        opened(make_spec(**changes))
    assert refused.value.field == field
    assert not home.root.exists()


@pytest.mark.parametrize(
    "changes",
    [
        *(changes for changes, _ in list(REFUSED.values())[1:]),
        {"training": {"seed": 7}},
        {"limits": {"merge": "frozen"}},
    ],
)
def test_a_start_that_is_refused_changes_nothing_of_the_campaign(server, home, changes):
    with Registry.open(home) as registry:
        before = registry.campaigns.record(make_spec(), SKILLS)
        skills = registry.skills.of("one")
        with pytest.raises(InputError):
            opened(make_spec(**changes))
        assert registry.campaigns.all() == [before] and registry.skills.of("one") == skills


def test_a_model_that_cannot_be_connected_to_is_refused_before_anything_is_recorded(server, home, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("FLOWRL_MODEL_KEY", raising=False)
    with pytest.raises(InputError):
        opened(make_spec(frontier=MODEL))
    with Registry.open(home) as registry:
        assert registry.campaigns.all() == []


def test_a_start_opens_the_registry_once_and_begins_one_start(server, home, monkeypatch):
    openings = []
    open_one = Registry.__init__

    def counted(self, *args, **kwargs):
        openings.append(self)
        open_one(self, *args, **kwargs)

    monkeypatch.setattr(Registry, "__init__", counted)
    first = opened(make_spec())
    assert len(openings) == 1
    form = {**CampaignSpec().model_dump(), "campaign": "one"}  # filled in with all defaults, also of the environment
    second = opened(parse_campaign(**form))
    assert len(openings) == 2 and (second.start, second.spec) == (first.start + 1, first.spec)


def test_what_an_earlier_start_left_behind_counts_for_that_one(deployment, home, monkeypatch):
    """The attempts' runs have ended while no flow of the campaign ran."""
    monkeypatch.setattr("tasks.campaign.reconcile._FRESH_S", 0.0)
    with Registry.open(home) as registry:
        registry.campaigns.record(make_spec(targets=["dig_a", "goto_bench"], limits={"max_retries": 0}), SKILLS)
        ends = {"dig_a": Crashed(message="killed"), "goto_bench": Cancelled(message="by hand")}
        attempts = {name: registry.skill_runs.begin("one", SKILLS[name].identity("corridor")) for name in ends}

        async def end():
            async with get_client() as client:
                for name, state in ends.items():
                    run = await client.create_flow_run_from_deployment(deployment)
                    for one in (Running(), state):
                        await client.set_flow_run_state(run.id, one, force=True)
                    registry.attempts.set_flow_run(attempts[name].id, str(run.id))

        asyncio.run(end())
        opened(make_spec(targets=[]))
        told = {name: registry.attempts.get(attempt.id) for name, attempt in attempts.items()}
        assert {name: attempt.end for name, attempt in told.items()} == {
            "dig_a": "infrastructure",
            "goto_bench": "cancelled",
        }
        facts = registry.skills.facts("one")
        assert not any(facts[name].failed or facts[name].retries for name in ends), "the new start counts anew"
