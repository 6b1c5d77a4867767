import dataclasses
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registry_steps import SIZES, SKILLS, begin, commit, learn, make_skill, make_spec, seal, start

from flowrl_core.errors import ConflictError, InputError, StorageError
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.database import make_engine, writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, Compared, ExpertResult, Measured
from flowrl_core.storage.records.skill_runs import Look
from flowrl_core.storage.registry import Registry
from flowrl_core.text import folded


@pytest.fixture
def home(new_home: Home) -> Home:
    return new_home


@pytest.fixture
def registry(home: Home, database: str) -> Iterator[Registry]:
    with Registry.open(home) as opened:
        opened.campaigns.record(make_spec(), SKILLS)
        yield opened


def test_a_new_registry_has_exactly_the_tables_of_the_schema(registry: Registry, home: Home) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with make_engine(home.registry_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_is_an_error_that_changes_nothing(registry: Registry, home: Home) -> None:
    before = registry.campaigns.all()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (home.registry.with_name("registry.sqlite-wal").stat().st_size, hard))
    try:
        with pytest.raises(StorageError, match="nothing was changed"):
            registry.campaigns.record(
                make_spec(campaign="other"), SKILLS | {f"s{i}": make_skill(f"s{i}") for i in range(100)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.campaigns.all() == before
    assert "s1" not in registry.skills.of("default")
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)


# Campaigns


def test_a_campaign_is_told_as_it_was_started(registry: Registry) -> None:
    campaign = registry.campaigns.get("default")
    assert campaign.targets == ("pickaxe",)
    assert campaign.spec == make_spec()
    assert registry.skills.get("default", "wood").skill == SKILLS["wood"]
    assert registry.skills.get("default", "wood").identity == SKILLS["wood"].identity("corridor")


def test_targets_are_added_and_limits_of_the_machine_may_change(registry: Registry) -> None:
    registry.campaigns.record(make_spec(targets=["table", "pickaxe"], limits={"max_retries": 5}), SKILLS)
    campaign = registry.campaigns.get("default")
    assert campaign.targets == ("pickaxe", "table")
    assert campaign.spec.limits.max_retries == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"env": "craftax-classic"}, "env"),
        ({"training": {"frames": 7}}, "training.frames"),
        ({"evaluation": {"threshold": 0.5}}, "evaluation.threshold"),
        ({"limits": {"merge": "frozen"}}, "limits.merge"),
        ({"knowledge": "other.toml"}, "knowledge"),
        ({"overrides": ["wood.frames=7"]}, "overrides.wood.frames"),
        ({"fresh": True}, "fresh"),
        ({"targets": ["woodd"]}, "targets"),
        ({"retry": ["stone"]}, "retry"),
    ],
)
def test_other_parameters_under_one_name_are_refused_and_change_nothing(
    registry: Registry, changes: dict[str, Any], field: str
) -> None:
    before = registry.campaigns.get("default")
    with pytest.raises(InputError) as error:
        registry.campaigns.record(make_spec(**changes), SKILLS)
    assert error.value.field == field
    assert registry.campaigns.get("default") == before


def test_skills_of_one_name_in_two_environments_are_two_skills(registry: Registry) -> None:
    registry.campaigns.record(make_spec(campaign="other", env="craftax-classic"), SKILLS)
    here, there = (registry.skills.get(campaign, "wood") for campaign in ("default", "other"))
    assert (here.env, there.env) == ("corridor", "craftax-classic") and here.identity != there.identity
    runs = {registry.skill_runs.get(begin(registry, "wood", campaign).run).ordinal for campaign in ("default", "other")}
    assert runs == {1, 2}, "both are trained at once, in directories of their own"


def test_the_campaign_started_last_is_told_whatever_the_clock_says(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    assert [campaign.name for campaign in registry.campaigns.all()] == ["other", "default"]
    registry.campaigns.record(make_spec(), SKILLS)
    assert registry.campaigns.last() == registry.campaigns.get("other"), "recorded, and not begun"
    registry.campaigns.begin_start(make_spec())
    assert (registry.campaigns.last() or pytest.fail("none")).name == "default"


def test_an_unknown_campaign_or_skill_is_named_with_those_that_exist(registry: Registry) -> None:
    with pytest.raises(InputError, match="default"):
        registry.campaigns.get("defualt")
    with pytest.raises(InputError, match="pickaxe"):
        registry.skills.get("default", "pickax")


# Attempts and failure


def test_an_attempt_is_named_by_registry_campaign_skill_and_number(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    assert attempt.key == f"{registry.uuid}/default/wood/1"
    assert registry.attempts.outstanding("default") == [attempt]
    assert registry.attempts.set_flow_run(attempt.id, "abc").flow_run_id == "abc"
    fact = registry.skills.facts("default")["wood"]
    assert fact.executing and fact.attempt == registry.attempts.get(attempt.id)


def test_a_skill_has_one_outstanding_attempt_whichever_campaign_asks(registry: Registry) -> None:
    begin(registry, "wood")
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    for campaign in ("default", "other"):
        with pytest.raises(ConflictError, match="attempt 1 of campaign 'default' is outstanding"):
            begin(registry, "wood", campaign)
    assert registry.skills.facts("other")["wood"].executing


def test_infrastructure_trouble_keeps_the_run_open_until_the_retries_are_used_up(registry: Registry) -> None:
    first = begin(registry, "wood")
    registry.attempts.end(first.id, "infrastructure", "worker died")
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.executing, fact.retries, fact.reason) == (False, False, 1, "worker died")

    second = begin(registry, "wood")
    assert (second.run, second.number, second.key[-2:]) == (first.run, 2, "/2")
    registry.attempts.end(second.id, "infrastructure", "out of memory")
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.retries, fact.reason) == (True, "infrastructure", 2, "out of memory")
    assert registry.skill_runs.get(first.run).verdict is None
    with pytest.raises(ConflictError, match="out of memory"):
        begin(registry, "wood")


def test_starting_the_campaign_again_begins_a_new_count_on_the_same_run(registry: Registry) -> None:
    attempts = [begin(registry, "wood")]
    registry.attempts.end(attempts[0].id, "infrastructure")
    attempts.append(begin(registry, "wood"))
    registry.attempts.end(attempts[1].id, "infrastructure")
    registry.campaigns.record(make_spec(), SKILLS)
    assert registry.skills.facts("default")["wood"].failed
    registry.campaigns.begin_start(make_spec())
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.retries) == (False, 0)
    assert begin(registry, "wood").run == attempts[0].run


def test_a_retry_of_the_same_flow_run_counts_too_and_once(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    for _ in range(3):
        registry.attempts.count_retry(attempt.id, "killed", execution=1)
    fact = registry.skills.facts("default")["wood"]
    assert (fact.retries, fact.executing, fact.failed) == (1, True, False)
    assert registry.attempts.count_retry(attempt.id, "killed again").interruptions == 2
    registry.attempts.end(attempt.id, "infrastructure", "killed at last")
    assert registry.skills.facts("default")["wood"].retries == 3


def test_trouble_of_an_attempt_that_lives_on_counts_for_the_start_it_happened_in(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.count_retry(attempt.id, "killed")
    start(registry, make_spec())
    assert registry.skills.facts("default")["wood"].retries == 0
    registry.attempts.end(attempt.id, "infrastructure", "killed")
    assert registry.skills.facts("default")["wood"].retries == 1


def test_a_cancelled_attempt_is_not_repeated_until_the_campaign_is_started_again(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.end(attempt.id, "cancelled", "by hand")
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.retries) == (True, "cancelled", 0)
    with pytest.raises(ConflictError, match="by hand"):
        begin(registry, "wood")
    start(registry, make_spec())
    assert begin(registry, "wood").run == attempt.run


def test_a_rejected_skill_is_not_tried_until_a_start_names_it(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.end(attempt.id, "rejected", "not this one")
    for _ in range(2):
        fact = registry.skills.facts("default")["wood"]
        assert (fact.failed, fact.cause, fact.reason) == (True, "rejected", "not this one")
        with pytest.raises(ConflictError, match="wood was rejected; start the campaign again with the skill"):
            begin(registry, "wood")
        start(registry, make_spec())  # which does not name it
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    assert not registry.skills.facts("other")["wood"].failed, "another campaign may"
    start(registry, make_spec(retry=["wood"]))
    assert not registry.skills.facts("default")["wood"].failed
    again = begin(registry, "wood")
    assert (again.run, again.number) == (attempt.run, 2)
    registry.attempts.end(again.id, "rejected", "again")
    assert registry.skills.facts("default")["wood"].cause == "rejected", "what was forgiven is the first rejection"


def test_the_first_end_of_an_attempt_stands(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.end(attempt.id, "cancelled")
    assert registry.attempts.end(attempt.id, "infrastructure").end == "cancelled"
    assert registry.skills.facts("default")["wood"].retries == 0


def test_the_verdict_in_the_registry_wins_over_how_the_attempt_seemed_to_end(registry: Registry) -> None:
    decided = begin(registry, "wood")
    registry.skill_runs.fail(decided.run, "it diverged")
    assert not registry.skills.facts("default")["wood"].executing
    assert registry.attempts.end(decided.id, "infrastructure", "crashed while it archived").end == "verdict"
    undecided = begin(registry, "table")
    assert registry.attempts.end(undecided.id, "verdict").end == "infrastructure"


def test_a_failed_skill_is_tried_again_only_if_named(registry: Registry) -> None:
    first = begin(registry, "wood")
    registry.skill_runs.fail(first.run, "below the threshold")
    registry.attempts.end(first.id, "verdict")
    start(registry, make_spec())
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.reason) == (True, "verdict", "below the threshold")
    with pytest.raises(ConflictError, match="retry"):
        begin(registry, "wood")

    start(registry, make_spec(retry=["wood"]))
    assert not registry.skills.facts("default")["wood"].failed
    second = begin(registry, "wood")
    assert second.run != first.run
    assert (registry.skill_runs.get(first.run).ordinal, registry.skill_runs.get(second.run).ordinal) == (1, 2)
    registry.skill_runs.fail(second.run, "again")
    registry.attempts.end(second.id, "verdict")
    assert registry.skills.facts("default")["wood"].failed
    assert begin(registry, "wood", new_run=True).run not in (first.run, second.run)


def test_a_changed_definition_is_another_skill_with_another_run_directory(registry: Registry) -> None:
    first = begin(registry, "wood")
    registry.skill_runs.fail(first.run, "")
    registry.attempts.end(first.id, "verdict")
    changed = SKILLS | {"wood": make_skill("wood", learn_count=4)}
    start(registry, make_spec(), changed)
    assert not registry.skills.facts("default")["wood"].failed
    second = begin(registry, "wood")
    assert second.subject != first.subject
    runs = [registry.skill_runs.get(first.run), registry.skill_runs.get(second.run)]
    assert len({(run.campaign, run.skill, run.ordinal) for run in runs}) == 2


def test_what_another_campaign_failed_at_is_no_failure_here_but_what_it_learned_is_learned(registry: Registry) -> None:
    failed = begin(registry, "table")
    registry.skill_runs.fail(failed.run, "")
    registry.attempts.end(failed.id, "verdict")
    learn(registry, ["wood"], {0: ("c1", 50)})
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    facts = registry.skills.facts("other")
    assert facts["wood"].learned and not facts["table"].failed
    with pytest.raises(ConflictError, match="is learned"):
        begin(registry, "wood", "other")


# Experts


def test_global_indices_are_given_once_and_in_order(registry: Registry) -> None:
    identities = {name: registry.skills.get("default", name).identity for name in SKILLS}
    given = [registry.library.allocate(identities[name], **SIZES).global_index for name in ("table", "wood", "table")]
    assert given == [0, 1, 0]
    assert [(e.global_index, e.name, e.head, e.bundle) for e in registry.library.experts()] == [
        (0, "table", None, None),
        (1, "wood", None, None),
    ]
    assert registry.library.expert(identities["pickaxe"]) is None


@pytest.mark.parametrize("field", SIZES)
def test_an_expert_of_another_size_is_refused_with_both_sizes(registry: Registry, field: str) -> None:
    identity = registry.skills.get("default", "wood").identity
    registry.library.allocate(identity, **SIZES)
    with pytest.raises(InputError, match=rf"has {SIZES[field]}, this run 99") as error:
        registry.library.allocate(identity, **SIZES | {field: 99})
    assert error.value.field == field


# Runs


def test_a_run_is_sealed_once(registry: Registry) -> None:
    run = begin(registry, "table").run
    assert registry.skill_runs.get(run).plan is None
    seal(registry, run, ["wood", "table"])
    seal(registry, run, ["wood", "table"])
    sealed = registry.skill_runs.get(run)
    assert sealed.plan == Plan("table", (Step("wood", 1), Step("table", 1)))
    assert (sealed.remap, sealed.seeds, sealed.config) == ({0: 0, 1: 1}, {0: None, 1: None}, SkillConfig())
    with pytest.raises(ConflictError, match="sealed with another"):
        seal(registry, run, ["table"])


def test_looks_are_numbered_and_the_first_at_a_number_of_frames_stands(registry: Registry) -> None:
    run = begin(registry, "wood").run
    look = Look(1000, 512, 256, 0.45, 0.0125, 0.88, (0.9, 0.55), (7, 8), ends=((20, 31), (5, 200)))
    first = registry.skill_runs.record_look(run, look)
    assert (first.number, first.success, first.steps, first.worlds) == (1, 0.5, (0.9, 0.55), (7, 8))
    assert registry.skill_runs.record_look(run, Look(1000, 512, 500, 0.95, 0.0125, 0.88)) == first
    second = registry.skill_runs.record_look(run, Look(2000, 512, 500, 0.95, 0.0125, 0.9))
    assert registry.skill_runs.looks(run) == [first, second] and second.number == 2
    registry.skill_runs.fail(run, "")
    with pytest.raises(ConflictError, match="has ended"):
        registry.skill_runs.record_look(run, Look(3000, 512, 500, 0.95, 0.0125, 0.9))


def test_a_process_whose_run_was_claimed_by_a_later_one_writes_nothing(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    zombie = registry.runs.claim(attempt.run)
    seal(registry, attempt.run, ["wood"])
    owner = registry.runs.claim(attempt.run)
    assert (zombie, owner, registry.skill_runs.get(attempt.run).epoch) == (1, 2, 2)
    sealed = registry.skill_runs.get(attempt.run)
    assert sealed.plan and sealed.remap and sealed.config and sealed.seeds
    parts: dict[str, Any] = {"plan": sealed.plan, "remap": sealed.remap, "config": sealed.config, "seeds": sealed.seeds}
    look = Look(10, 512, 480, 0.9, 0.0125, 0.88)
    for write in (
        lambda epoch: registry.runs.check_claim(attempt.run, epoch),
        lambda epoch: registry.skill_runs.seal(attempt.run, **parts, epoch=epoch),
        lambda epoch: registry.skill_runs.record_look(attempt.run, look, epoch=epoch),
        lambda epoch: commit(registry, attempt.run, {0: ("a", 50)}, epoch=epoch),
        lambda epoch: registry.skill_runs.fail(attempt.run, "it diverged", epoch=epoch),
    ):
        runs = registry.skill_runs
        before = (runs.get(attempt.run), runs.looks(attempt.run), runs.merges(attempt.run))
        with pytest.raises(ConflictError, match=r"taken over by another process \(claim 2, this one has 1\)"):
            write(zombie)
        assert (runs.get(attempt.run), runs.looks(attempt.run), runs.merges(attempt.run)) == before
        write(owner)
    assert registry.skill_runs.get(attempt.run).verdict == "learned"


def test_an_id_that_does_not_exist_is_named(registry: Registry) -> None:
    for get in (registry.skill_runs.get, registry.library.version, registry.attempts.get):
        with pytest.raises(StorageError, match="no .* 77"):
            get(77)


# Commits


def test_a_learned_run_makes_versions_heads_and_a_bundle(registry: Registry) -> None:
    (merge,) = learn(registry, ["wood"], {0: ("c1", 50)})
    assert (merge.action, merge.name, merge.from_version, merge.frames) == ("new", "wood", None, 50)
    head = registry.library.head(0)
    assert head is not None and (head.id, head.content, head.frames, head.parent) == (merge.version, "c1", 50, None)
    bundle = registry.library.bundle(registry.skills.get("default", "wood").identity)
    assert bundle is not None and bundle.versions == {0: head}
    assert (bundle.success, bundle.lower_bound, bundle.threshold, bundle.plan.target) == (0.9, 0.8, 0.75, "wood")
    assert registry.library.experts()[0].bundle == bundle.id
    assert registry.skills.facts("default")["wood"].learned


def test_committing_twice_changes_nothing_and_answers_the_same(registry: Registry) -> None:
    run = begin(registry, "wood").run
    seal(registry, run, ["wood"])
    first = commit(registry, run, {0: ("c1", 50)})
    before = (registry.skill_runs.get(run), registry.library.versions(0), registry.library.experts())
    assert commit(registry, run, {0: ("c1", 50)}) == first
    # A late commit of an old process: the registry's verdict stands.
    assert commit(registry, run, {0: ("c2", 99)}, verdict="failed", bundle=None) == first
    assert (registry.skill_runs.get(run), registry.library.versions(0), registry.library.experts()) == before


def test_a_run_that_did_not_learn_moves_no_head_and_leaves_its_versions(registry: Registry) -> None:
    learn(registry, ["wood"], {0: ("c1", 50)})
    merges = learn(
        registry, ["wood", "table"], {0: ("c2", 500), 1: ("t1", 10)}, verdict="failed", bundle=None, reason="x"
    )
    assert [merge.action for merge in merges] == ["kept", "kept"]
    assert [version.content for version in registry.library.versions(0)] == ["c1", "c2"]
    assert (registry.library.head(0) or pytest.fail("none")).content == "c1"
    assert registry.library.head(1) is None
    assert not registry.skills.facts("default")["table"].learned


@pytest.mark.parametrize("order", [("table", "pickaxe"), ("pickaxe", "table")])
def test_of_siblings_the_one_with_more_frames_wins_whichever_ends_first(
    registry: Registry, order: tuple[str, str]
) -> None:
    million = 1_000_000
    learn(registry, ["wood"], {0: ("seed", 50 * million)})
    runs = {name: begin(registry, name).run for name in ("table", "pickaxe")}
    for name, run in runs.items():
        seal(registry, run, ["wood", name])
    frames = {"table": 80 * million, "pickaxe": 100 * million}
    own = {"table": 1, "pickaxe": 2}
    actions = [
        commit(registry, runs[name], {0: (name, frames[name]), own[name]: (f"own {name}", 1)})[0].action
        for name in order
    ]
    head = registry.library.head(0)
    assert head is not None and (head.content, head.frames) == ("pickaxe", 150 * million)
    assert actions == ["updated", "updated" if order[0] == "table" else "kept"]
    assert sorted(v.frames // million for v in registry.library.versions(0)) == [50, 130, 150]


def test_unchanged_content_is_the_same_version(registry: Registry) -> None:
    learn(registry, ["wood"], {0: ("c1", 50)})
    merges = learn(registry, ["wood", "table"], {0: ("c1", 0), 1: ("t1", 10)})
    assert (merges[0].action, merges[0].version) == ("kept", merges[0].from_version)
    assert len(registry.library.versions(0)) == 1
    # Another expert may have the same content: that is another version.
    assert len({version.id for index in (0, 1) for version in registry.library.versions(index)}) == 2


def test_frozen_heads_stay_but_a_new_expert_gets_its_first(registry: Registry) -> None:
    learn(registry, ["wood"], {0: ("c1", 50)})
    merges = learn(registry, ["wood", "table"], {0: ("c2", 500), 1: ("t1", 10)}, policy="frozen")
    assert [merge.action for merge in merges] == ["kept", "new"]


def test_the_policy_evaluated_moves_a_head_by_what_was_measured_against_it_and_says_so(registry: Registry) -> None:
    learn(registry, ["wood"], {0: ("a", 50)})
    attempt = begin(registry, "table")
    seal(registry, attempt.run, ["wood", "table"])
    contents = {0: ("b", 50), 1: ("c", 50)}
    with pytest.raises(InputError, match="compared: missing under the policy 'evaluated'"):
        commit(registry, attempt.run, contents, policy="evaluated")
    measured = Measured(head=1, episodes=512, head_successes=400, version_successes=399)
    for stale in ({0: None, 1: None}, {0: 7, 1: None}, {0: 1, 1: 7}):
        with pytest.raises(ConflictError, match="was moved while it was measured"):
            commit(registry, attempt.run, contents, policy="evaluated", compared=Compared(stale, {0: measured}))
    assert registry.skill_runs.get(attempt.run).verdict is None and len(registry.library.versions(0)) == 1
    compared = Compared({0: 1, 1: None}, {0: measured})
    merges = commit(registry, attempt.run, contents, policy="evaluated", compared=compared)
    assert [(merge.action, merge.measured) for merge in merges] == [("kept", measured), ("new", None)]
    assert registry.skill_runs.merges(attempt.run) == merges
    assert registry.skills.figures("default")["table"].merges == tuple(merges)
    registry.attempts.end(attempt.id, "verdict")
    as_good = dataclasses.replace(measured, version_successes=400)
    compared = Compared({0: 1, 2: None}, {0: as_good})
    merges = learn(registry, ["wood", "pickaxe"], {0: ("d", 1), 2: ("e", 1)}, policy="evaluated", compared=compared)
    assert [(merge.action, merge.measured) for merge in merges] == [("updated", as_good), ("new", None)]


def test_bundles_that_hold_an_expert_come_newest_first(registry: Registry) -> None:
    learn(registry, ["wood"], {0: ("c1", 50)})
    learn(registry, ["wood", "table"], {0: ("c2", 5), 1: ("t1", 10)})
    assert [bundle.skill for bundle in registry.library.bundles_with(0)] == ["table", "wood"]
    assert [bundle.skill for bundle in registry.library.bundles_with(1)] == ["table"]
    assert [v.content for v in registry.library.bundles_with(0)[0].versions.values()] == ["c2", "t1"]


def test_a_commit_that_makes_no_sense_is_refused(registry: Registry) -> None:
    run = begin(registry, "wood").run
    seal(registry, run, ["wood"])
    results = [ExpertResult(0, "c", 1, None)]
    bundle = BundleFacts(1, 1, 1, 0.5)
    for results_, verdict, facts in (
        (results, "learned", None),
        (results, "failed", bundle),
        (results * 2, "learned", bundle),
        ([], "learned", bundle),
    ):
        with pytest.raises(InputError):
            registry.skill_runs.commit(
                run,
                verdict=verdict,  # type: ignore[arg-type]
                run_frames=1,
                results=results_,
                policy="most_frames",
                bundle=facts,
            )
    assert registry.skill_runs.get(run).verdict is None and registry.library.versions(0) == []


# Figures


def test_the_figures_of_a_campaign_tell_runs_looks_and_merges(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    seal(registry, attempt.run, ["wood"])
    registry.skill_runs.record_look(attempt.run, Look(1000, 512, 300, 0.5, 0.0125, 0.88))
    registry.skill_runs.record_look(attempt.run, Look(2000, 512, 480, 0.9, 0.0125, 0.9))
    merges = commit(registry, attempt.run, {0: ("c1", 50)})
    begin(registry, "table")
    figures = registry.skills.figures("default")

    wood = figures["wood"]
    assert wood.fact.learned and (wood.expert, wood.run, wood.looks, wood.episodes) == (0, attempt.run, 2, 512)
    assert (wood.success, wood.success_lower_bound, wood.threshold) == (480 / 512, 0.9, 0.75)
    assert (wood.routed_frames, wood.run_frames, wood.bundle) == (50, 100, registry.library.experts()[0].bundle)
    assert wood.merges == tuple(merges)
    assert wood.started_at and wood.ended_at and wood.ended_at >= wood.started_at

    table = figures["table"]
    assert table.fact.executing and (table.routed_frames, table.success, table.ended_at) == (0, None, None)
    assert figures["pickaxe"].run is None

    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    other = registry.skills.figures("other")
    assert (other["wood"].run, other["wood"].run_campaign) == (attempt.run, "default")
    assert other["table"].run is None


def test_names_that_differ_by_case_or_unicode_form_only_are_skills_of_their_own(home: Home) -> None:
    """Also where the file system takes their directories' names for one."""
    names = ["wood", "Wood", "\u212b", "\u00c5"]
    with Registry.open(home) as registry:
        paths = []
        for campaign in ("night", "Night"):
            skills = {name: make_skill(name, ephemeral=campaign == "Night") for name in names}
            registry.campaigns.record(make_spec(campaign=campaign, targets=names), skills)
            for name in names:
                run = registry.skill_runs.get(begin(registry, name, campaign).run)
                directories = (home.run_directory, home.archived_run)
                paths += [directory(campaign, run.skill, run.ordinal).path for directory in directories]
        assert len({folded(str(path)) for path in paths}) == len(paths) == 16
        registry.attempts.end(registry.attempts.outstanding("night")[0].id, "cancelled")
        assert {n: f.cause for n, f in registry.skills.facts("night").items()} == dict.fromkeys(names, "") | {
            "wood": "cancelled"
        }
        assert not any(fact.failed for fact in registry.skills.facts("Night").values())


def _ended_runs(home: Home, count: int) -> None:
    """A campaign of so many learned skills, each with two looks and a version of the one before it."""
    names = [f"s{i:04}" for i in range(count)]
    with Registry.open(home) as registry:
        registry.campaigns.record(make_spec(targets=names), {name: make_skill(name) for name in names})
        known = registry.skills.of("default")
    skills = [known[name].identity for name in names]
    plan = Plan("x", (Step("x", 1),))
    sealed = {"plan": plan.as_dict(), "plan_hash": plan.hash, "remap": {"0": 0}, "seeds": {"0": None}}
    ended = {"config": SkillConfig().model_dump(mode="json"), "ended_at": 2.0, "verdict": "learned"}
    common = {"campaign": "default", "created_at": 1.0}
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        schema.runs: [
            {"id": i + 1, "family": "skill", "subject": skills[i], "name": name, "ordinal": 1} | (common | ended)
            for i, name in enumerate(names)
        ],
        schema.skill_runs: [{"run": i + 1, "identity": skills[i]} | sealed for i in range(count)],
        schema.attempts: [
            {"id": i + 1, "run": i + 1, "subject": skills[i], "name": name, "number": 1, "key": name, **common}
            | {"ended": "verdict", "ended_in_start": 1}
            for i, name in enumerate(names)
        ],
        schema.interruptions: [
            {"attempt": i + 1, "number": 1, "start": 1, "reason": "killed", "created_at": 1.0} for i in range(count)
        ],
        schema.looks: [
            {"run": i + 1, "number": k, "frames": k, "episodes": 512, "successes": 500, "lower_bound": 0.9}
            | {"level": 0.0125, "target": 0.88, "steps": [0.9] * 6, "worlds": [i, k], "created_at": 1.0}
            for i in range(count)
            for k in (1, 2)
        ],
        schema.experts: [
            {"global_index": i, "identity": identity, "kind": "skill", **SIZES} for i, identity in enumerate(skills)
        ],
        schema.versions: [
            {"id": 1 + 2 * i + k, "kind": "skill", "expert": max(0, i - k), "content": f"{i}-{k}", "frames": 100}
            | {"run": i + 1, "created_at": 1.0}
            for i in range(count)
            for k in (0, 1)
        ],
        schema.heads: [{"expert": i, "version": 1 + 2 * i} for i in range(count)],
        schema.merges: [
            {"run": i + 1, "expert": max(0, i - k), "action": "new", "version": 1 + 2 * i + k, "frames": 100}
            | {"to_version": 1 + 2 * i + k, "routed_frames": 100}
            for i in range(count)
            for k in ((0, 1) if i else (0,))
        ],
        schema.bundles: [
            {"id": i + 1, "run": i + 1, "identity": identity, "plan": plan.as_dict(), "success": 0.9}
            | {"lower_bound": 0.8, "episodes": 512, "threshold": 0.75, "created_at": 1.0}
            for i, identity in enumerate(skills)
        ],
        schema.bundle_versions: [{"bundle": i + 1, "expert": i, "version": 1 + 2 * i} for i in range(count)],
    }
    with writing(make_engine(home.registry_url)) as tx:
        for table, entries in rows.items():
            tx.execute(sa.insert(table), entries)


def _resumed(home: Home, count: int) -> int:
    """Statements of all that a resumed campaign, and its table, read of `count` ended runs."""
    _ended_runs(home, count)
    spec, skills = make_spec(targets=["s0000"]), {f"s{i:04}": make_skill(f"s{i:04}") for i in range(count)}
    statements = []
    with Registry.open(home) as registry:
        sa.event.listen(registry._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        registry.campaigns.record(spec, skills)
        assert registry.attempts.outstanding("default") == []
        facts, figures = registry.skills.facts("default"), registry.skills.figures("default")
        assert len(registry.library.experts()) == len(registry.skills.of("default")) == count
    assert sum(fact.retries for fact in facts.values()) == sum(fact.learned for fact in facts.values()) == count
    assert {(one.looks, one.success, one.bundle is not None) for one in figures.values()} == {(2, 500 / 512, True)}
    assert sum(len(one.merges) for one in figures.values()) == 2 * count - 1
    return len(statements)


def test_a_thousand_ended_runs_are_read_in_as_many_statements_as_ten(tmp_path: Path, home: Home) -> None:
    assert _resumed(home, 1000) == _resumed(Home(tmp_path / "few"), 10) < 50
