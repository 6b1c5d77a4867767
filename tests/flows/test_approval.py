"""A person's approval of skills: in the form of the Prefect UI, and by the API that its Resume and Cancel call."""

import asyncio
import json

import pytest
from browsers import browsing, expect
from flow_runs import EVALUATION, end_of, flow_run, skill_runs, spec, start, until
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from flowrl_core.skills.knowledge import shipped
from flowrl_core.specs.campaign import LimitsSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.storage.atomic import write_text
from tasks.campaign.campaign_runs import cancel_campaign
from tasks.orchestration.runs.approval import offer
from tasks.skill.approval import approval_form

CAMPAIGN = "asked"
TARGETS = ("goto_bench", "dig_a", "dig_too")
# Two updates: nothing is learned so soon.
FEW = 512


def waiting(registry):
    """The campaign's runs that wait for approval, by skill."""
    return {run.name: run for run in skill_runs(registry, CAMPAIGN) if run.state.is_paused()}


def resume(run, changes=None):
    async def send():
        async with get_client() as client:
            return await client.resume_flow_run(run.id, run_input=changes)

    return asyncio.run(send())


def cancel(run):
    async def send():
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Cancelling())

    asyncio.run(send())


def offered(run):
    """The fields of the form that the UI shows on Resume, with their defaults."""

    async def read():
        async with get_client() as client:
            return await client.read_flow_run_input(run.id, run.state.state_details.run_input_keyset["schema"])

    return {name: field["default"] for name, field in json.loads(asyncio.run(read()))["properties"].items()}


@pytest.fixture(scope="module")
def wanted(server):
    """A campaign of skills that no other test has, none of which needs another."""
    text = shipped("corridor").read_text()
    for reward in ("gained.a", "closer.bench"):
        text = text.replace(f'"{reward}"', f'"2 * {reward}"')
    first = text.index("[skills.dig_a]")
    twin = text[first : text.index("[skills.goto_bench]")].replace("dig_a", "dig_too").replace("2 *", "3 *")
    write_text(server.home.knowledge_file("asked.toml"), text + "\n" + twin)

    def make(**changes):
        limits = LimitsSpec(approval="required", max_parallel=1)
        evaluation = EVALUATION.model_copy(update={"min_frames": FEW})
        # In a library of its own: experts of earlier definitions would make a learned skill of one with few frames.
        settings = {"limits": limits, "evaluation": evaluation, "fresh": True}
        return spec(CAMPAIGN, *TARGETS, knowledge="asked.toml", **settings, **changes)

    return make


@pytest.fixture(scope="module")
def campaign(server, registry, wanted):
    """Its three runs, each waiting for an answer."""
    run = start(registry, wanted())
    runs = until(lambda: len(found := waiting(registry)) == len(TARGETS) and found, "three runs that wait")
    yield run, runs
    asyncio.run(cancel_campaign(run.registry, run.campaign))


def test_the_form_offers_the_configuration_of_the_run(campaign, wanted):
    _, runs = campaign
    assert offered(runs["dig_a"])["frames"] == wanted().training.frames
    assert offered(runs["dig_a"])["threshold"] == wanted().evaluation.threshold


def test_a_form_that_is_offered_again_after_a_crash_stays_as_it_was(campaign, registry, wanted):
    _, runs = campaign
    before = offered(runs["dig_a"])
    other = resolve("dig_a", wanted(overrides=["dig_a.frames=1024"]))
    asyncio.run(offer(runs["dig_a"], approval_form(registry.skills.get(CAMPAIGN, "dig_a").skill, other)))
    assert offered(runs["dig_a"]) == before


def test_a_change_that_no_run_can_take_is_refused_and_the_run_waits_on(campaign, registry):
    _, runs = campaign
    given = offered(runs["dig_a"])
    assert resume(runs["dig_a"], {**given, "frames": 0}).status.value == "REJECT"
    assert "dig_a" in waiting(registry)


def test_an_approved_skill_is_learned_while_the_others_wait(campaign, registry):
    _, runs = campaign
    resume(runs["goto_bench"], {"frames": offered(runs["goto_bench"])["frames"]})  # what is left out stays
    until(lambda: registry.skills.facts(CAMPAIGN)["goto_bench"].learned, "the approved skill")
    assert set(waiting(registry)) == {"dig_a", "dig_too"}


def test_changes_made_in_the_form_are_what_the_run_trains_with(chromium, server, campaign, registry, wanted):
    _, runs = campaign
    with browsing(chromium, f"{server.url.removesuffix('/api')}/runs/flow-run/{runs['dig_a'].id}") as page:
        page.get_by_role("button", name="Resume").click()
        form = page.get_by_role("dialog")
        for told in ("Approve the training of dig_a", "Dig at the mine", "done when: since.a >= n"):
            expect(form).to_contain_text(told)
        frames, learning_rate, *_ = form.locator("input").all()
        frames.fill(str(FEW))
        learning_rate.fill("0.002")
        form.get_by_role("button", name="Submit").click()
        expect(form).to_be_hidden()
    until(lambda: registry.skills.facts(CAMPAIGN)["dig_a"].failed, "the run that was given few frames")
    config = registry.skill_runs.of(registry.skills.facts(CAMPAIGN)["dig_a"].identity)[-1].config
    assert (config.training.frames, config.training.learning_rate) == (FEW, 0.002)
    assert config.training.model_copy(update={"frames": 60_000, "learning_rate": 1e-3}) == wanted().training


def test_a_rejected_skill_is_not_trained_and_the_campaign_ends_without_it(campaign, registry):
    run, runs = campaign
    cancel(runs["dig_too"])
    assert end_of(run).message == "not learned: dig_a, dig_too"
    fact = registry.skills.facts(CAMPAIGN)["dig_too"]
    assert (fact.cause, fact.attempt) == ("rejected", None)
    assert flow_run(runs["dig_too"].id).run_count == 0


def test_a_rejection_stands_until_a_start_asks_for_the_skill_again(campaign, registry, wanted):
    assert end_of(start(registry, wanted())).is_failed()
    assert registry.skills.facts(CAMPAIGN)["dig_too"].cause == "rejected" and not waiting(registry)
    again = start(registry, wanted(retry=["dig_too"]))
    until(lambda: "dig_too" in waiting(registry), "the question")
    assert asyncio.run(cancel_campaign(again.registry, again.campaign))
    until(lambda: not registry.attempts.outstanding(CAMPAIGN), "the end of the attempt")
    assert registry.skills.facts(CAMPAIGN)["dig_too"].cause == "cancelled", "that was no answer to the question"
