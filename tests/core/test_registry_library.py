import dataclasses
from typing import Any

import pytest
from registry_steps import SIZES, SKILLS, begin, commit, learn, seal

from flowrl_core.errors import ConflictError, InputError, StorageError
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.records.library import BundleFacts, Compared, ExpertResult, Measured
from flowrl_core.storage.records.skill_runs import Look
from flowrl_core.storage.registry import Registry


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
