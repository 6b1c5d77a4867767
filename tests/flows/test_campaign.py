"""Campaigns of the tiny environment as they really run: server, workers, and a process per flow run."""

import asyncio
import json
import signal
import time

import pytest
from flow_runs import TRAINING, Endless, end_of, flow_run, process_of, skill_runs, spec, start, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.states import Cancelled, Cancelling

from flowrl_cli.server import embedded
from flowrl_cli.views.view import view_campaign
from flowrl_core.storage.ownership import exclusive
from tasks.campaign.campaign_runs import CAMPAIGN, cancel_campaign, start_campaign_run
from tasks.orchestration.devices.slots import count_slots, free_slots

MIXED = spec("mixed", "make_b", "make_d", overrides=["make_d.frames=512", "make_d.min_frames=512"])


def archived(server, registry, skill, name):
    figures = registry.skills.figures("mixed")[skill]
    return (server.home.archived_run("mixed", skill, figures.ordinal).path / name).read_text()


@pytest.fixture(scope="module")
def mixed(server, registry):
    """A campaign that has ended, and its last state: one target can be learned, the other's budget is far too small."""
    run = start(registry, MIXED)
    return run, end_of(run)


def test_a_campaign_learns_what_it_can_and_fails_if_a_target_is_missed(mixed, registry):
    _, end = mixed
    assert end.is_failed() and end.message == "not learned: make_d"
    facts = registry.skills.facts("mixed")
    assert {name for name, fact in facts.items() if fact.learned} == {"dig_a", "goto_bench", "make_b"}
    assert registry.attempts.outstanding("mixed") == []


def test_a_skill_that_did_not_learn_ends_completed_and_is_not_tried_again(mixed, registry):
    fact = registry.skills.facts("mixed")["make_d"]
    assert fact.cause == "verdict"
    assert [one.verdict for one in registry.skill_runs.of(fact.identity)] == ["failed"]
    runs = skill_runs(registry, "mixed")
    assert {run.name: run.state.name for run in runs} == {
        "dig_a": "Learned",
        "goto_bench": "Learned",
        "make_b": "Learned",
        "make_d": "NotLearned",
    }
    assert all(run.state.is_completed() for run in runs)


def test_a_dependant_starts_as_soon_as_its_dependencies_are_learned(mixed, server, registry):
    timing = {
        name: json.loads(archived(server, registry, name, "timing.json")) for name in ("dig_a", "goto_bench", "make_b")
    }
    waited = timing["make_b"]["first_line"] - max(timing["dig_a"]["ended"], timing["goto_bench"]["ended"])
    print(f"\ndependency done -> dependant's first line: {waited:.1f} s")
    assert 0 < waited < 45, "a loaded machine is slow, but it was not the safety net of a minute that woke the campaign"


def test_what_a_run_says_is_kept_in_its_log(mixed, server, registry):
    log = archived(server, registry, "make_b", "training.log")
    assert "nan" not in log, "what is not known yet is said in words"
    assert "device slot" in log and "prepared make_b" in log and "look 1" in log


def test_the_progress_of_training_is_on_the_page_of_its_run_and_task_and_ends_with_it(mixed, registry):
    """Most skills are learned long before their budget is used up."""

    async def artifacts():
        async with get_client() as client:
            return await client.read_artifacts(
                artifact_filter=ArtifactFilter.model_validate({"type": {"any_": ["progress"]}}),
                flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run.id for run in runs]}}),
            )

    runs = skill_runs(registry, "mixed")
    found = asyncio.run(artifacts())
    assert {one.flow_run_id for one in found} == {run.id for run in runs}
    assert all(one.task_run_id for one in found)
    ends = {run.id: "learned: success" if run.state.name == "Learned" else "failed: success" for run in runs}
    assert all(one.description.startswith(ends[one.flow_run_id]) for one in found)
    assert all(float(one.data) == 100 and "nan" not in one.description for one in found)


def test_a_campaign_with_another_seed_says_on_its_page_who_has_learned_a_skill_already(mixed, registry):
    """And learns it once more, if it has a library of its own."""

    async def table():
        async with get_client() as client:
            kind = {"key": {"any_": ["campaign-seeded"]}}
            (found,) = await client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(kind))
            return json.loads(found.data)

    again = spec("seeded", "dig_a", training=TRAINING.model_copy(update={"seed": 7}))
    apart = again.model_copy(update={"campaign": "apart", "fresh": True})
    runs = [start(registry, one) for one in (again, apart)]
    assert all(end_of(run).is_completed() for run in runs)
    (row,) = asyncio.run(table())
    by = registry.skills.figures("seeded")["dig_a"].run_campaign
    assert row["why"] == f"already learned by campaign {by} with seed 0 (here 7)"
    figures = registry.skills.figures("apart")["dig_a"]
    assert figures.run_campaign == "apart" and figures.expert != registry.skills.figures(by)["dig_a"].expert


def test_a_second_start_repeats_nothing(mixed, registry):
    run, end = mixed
    again = start(registry, MIXED)
    assert not again.attached and again.id != run.id
    assert end_of(again).message == end.message
    assert len(skill_runs(registry, "mixed")) == 4


def test_a_start_waits_for_a_process_whose_run_the_server_has_ended(mixed, server, registry):
    """A campaign that was cut off from the server is declared crashed while its process lives and holds the lock."""
    with exclusive(server.home.runs / "mixed.lock", what="campaign mixed"):
        run = start(registry, MIXED)
        until(lambda: flow_run(run.id).state.is_running(), "the start")
        time.sleep(3)
        assert flow_run(run.id).state.is_running(), "neither refused nor begun"
        assert registry.campaigns.get("mixed").started_at < flow_run(run.id).start_time.timestamp()
    assert end_of(run).message == "not learned: make_d"


def test_a_skill_that_failed_goes_on_with_more_frames_under_the_same_campaign(mixed, server, registry):
    expert = registry.library.expert(registry.skills.facts("mixed")["make_d"].identity)
    (before,) = registry.library.versions(expert.global_index)
    more = spec("mixed", retry=["make_d"], overrides=["make_d.frames=60000"])
    assert end_of(start(registry, more)).message == "learned make_b, make_d"
    head = registry.library.head(expert.global_index)
    assert head.parent == before.id and head.frames > before.frames
    config = json.loads(archived(server, registry, "make_d", "config.json"))
    assert config["goes_on_from"] == registry.skill_runs.get(before.run).ordinal
    assert config["parameters"]["training"]["frames"] == 60_000
    assert config["parameters"]["evaluation"]["min_frames"] == 512, "an override that was not given again stays"


def test_a_campaign_cancelled_while_its_worker_starts_it_begins_nothing(mixed, registry):
    """Prefect starts it nevertheless, and calls it Running."""
    run = start(registry, spec("late", "make_b"))
    until(lambda: flow_run(run.id).state.is_pending(), "a worker that has taken it")

    async def cancel():
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Cancelled())

    asyncio.run(cancel())
    until(lambda: flow_run(run.id).run_count, "its process")
    until(lambda: process_of(run.id) is None, "the end of its process")
    assert flow_run(run.id).state.is_cancelled()
    assert "late" not in [campaign.name for campaign in registry.campaigns.all()]


@pytest.fixture(scope="module")
def endless(server, registry):
    campaign = Endless(server.home, registry, "endless", "make_c")
    yield campaign
    asyncio.run(cancel_campaign(campaign.run.registry, campaign.run.campaign))


def test_a_second_start_attaches_to_the_campaign_that_runs(endless):
    again = start(endless.registry, endless.wanted)
    assert again.attached and again.id == endless.run.id


def test_two_who_start_it_at_the_same_moment_get_the_same_run(endless):
    async def both():
        wanted = endless.wanted.model_copy(update={"campaign": "twice", "targets": ["make_e"]})
        first, second = await asyncio.gather(*(start_campaign_run(endless.registry.uuid, wanted) for _ in range(2)))
        assert await cancel_campaign(first.registry, first.campaign)
        return first, second

    first, second = asyncio.run(both())
    assert first.id == second.id


def test_a_second_run_of_the_campaign_made_by_hand_is_refused_and_changes_nothing(endless):
    async def by_hand():
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(CAMPAIGN)
            parameters = endless.wanted.model_dump(mode="json")
            return await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)

    run = asyncio.run(by_hand())
    state = until(lambda: (state := flow_run(run.id).state).is_final() and state, "the end of the second run")
    assert state.name == "Refused" and "campaign endless is held by process" in state.message
    assert [one.id for one in endless.registry.attempts.outstanding("endless")] == [endless.attempt.id]


def test_a_killed_trainer_goes_on_in_the_same_prefect_run_from_its_checkpoint(endless):
    until(endless.checkpoint, "a checkpoint")
    endless.kill(endless.attempt.flow_run_id)
    until(lambda: flow_run(endless.attempt.flow_run_id).run_count == 2, "the second execution")
    kept = endless.checkpoint()
    endless.trained_on(kept)
    assert "resuming make_c from update" in endless.directory.log.read_text()
    assert endless.registry.skills.facts("endless")["make_c"].retries == 1
    (shown,) = [
        one
        for one in view_campaign(endless.home, endless.registry, endless.registry.campaigns.get("endless"))
        if one.name == "make_c"
    ]
    assert shown.remark.startswith("was interrupted (Crashed: ") and shown.remark.endswith("; retried (1 of 2)")


def test_a_campaign_that_was_killed_is_started_again_and_doubles_nothing(endless):
    endless.kill(endless.run.id)
    until(lambda: flow_run(endless.run.id).state.is_crashed(), "the crash")
    endless.trained_on(endless.updates())
    before, endless.run = endless.run, start(endless.registry, endless.wanted)
    assert not endless.run.attached and endless.run.id != before.id
    until(lambda: flow_run(endless.run.id).state.is_running(), "the second start")
    time.sleep(3)
    assert [one.id for one in endless.registry.attempts.outstanding("endless")] == [endless.attempt.id]
    assert len(skill_runs(endless.registry, "endless")) == 1


def test_a_server_that_dies_is_started_again_and_everything_goes_on(endless):
    embedded.Record.load(endless.home).alive("server").send_signal(signal.SIGKILL)
    endless.trained_on(endless.updates())
    assert embedded.heal(endless.home)
    assert embedded.status(endless.home) is not None
    assert flow_run(endless.attempt.flow_run_id).state.is_running()
    assert flow_run(endless.run.id).state.is_running()


def test_cancelling_a_campaign_in_the_ui_ends_its_skills_and_marks_the_ledger(endless):
    began = time.monotonic()

    async def cancel_only_the_campaign():
        async with get_client() as client:
            await client.set_flow_run_state(endless.run.id, Cancelling())

    asyncio.run(cancel_only_the_campaign())
    until(lambda: flow_run(endless.attempt.flow_run_id).state.is_cancelled(), "the end of the skill's run")
    until(lambda: process_of(endless.attempt.flow_run_id) is None, "the end of the trainer")
    until(lambda: flow_run(endless.run.id).state.is_cancelled(), "the end of the campaign's run")
    print(f"\ncancelled in {time.monotonic() - began:.1f} s")
    assert endless.checkpoint() == endless.updates(), "the last update is saved"
    assert endless.registry.skills.facts("endless")["make_c"].cause == "cancelled"
    assert free_slots() == count_slots()


def test_a_cancelled_campaign_goes_on_from_its_checkpoint_when_it_is_started_again(endless):
    kept, before = endless.checkpoint(), endless.attempt
    endless.run = start(endless.registry, endless.wanted)
    endless.attempt = until(endless.submitted, "the second attempt")
    endless.trained_on(kept)
    assert endless.attempt.run == before.run and endless.attempt.flow_run_id != before.flow_run_id


def test_cancelling_a_campaign_by_the_command_saves_a_checkpoint_and_leaves_no_process(endless):
    assert asyncio.run(cancel_campaign(endless.run.registry, endless.run.campaign))
    assert flow_run(endless.run.id).state.is_cancelled()
    assert flow_run(endless.attempt.flow_run_id).state.is_cancelled()
    until(lambda: process_of(endless.attempt.flow_run_id) is None, "the end of the trainer")
    until(lambda: process_of(endless.run.id) is None, "the end of the campaign")
    assert endless.checkpoint() == endless.updates(), "the last update is saved"
    assert endless.registry.skills.facts("endless")["make_c"].cause == "cancelled"


def test_a_cancelled_run_whose_worker_does_not_hear_of_it_ends_by_itself(endless):
    before = endless.attempt
    endless.run = start(endless.registry, endless.wanted)
    endless.attempt = until(lambda: (one := endless.submitted()) != before and one, "the third attempt")
    endless.trained_on(endless.checkpoint())
    worker = embedded.Record.load(endless.home).alive("workers")
    worker.suspend()
    try:
        began = time.monotonic()
        assert asyncio.run(cancel_campaign(endless.run.registry, endless.run.campaign))
        until(lambda: process_of(endless.attempt.flow_run_id) is None, "the end of the trainer")
        print(f"\ncancelled in {time.monotonic() - began:.1f} s")
    finally:
        worker.resume()
    assert endless.checkpoint() == endless.updates(), "the last update is saved"
    assert endless.registry.skills.facts("endless")["make_c"].cause == "cancelled"
    until(lambda: free_slots() == count_slots(), "free slots")
    assert flow_run(endless.attempt.flow_run_id).state.is_cancelled()
