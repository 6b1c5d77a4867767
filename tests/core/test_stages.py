"""The stages of a run: each is safe to repeat, goes on where it stood, and leaves what it promises."""

import dataclasses
import json
import logging
import re

import pytest
from corridor_runs import KNOWLEDGE, begin, copy_home, drive, facts, learn, make_spec

from flowrl_core.errors import ConflictError, InputError, StorageError
from flowrl_core.programs.model import Program
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.directory import SkillRunDirectory
from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.process import process
from flowrl_core.stages.skill.train import train
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get

TINY = {"training": {"frames": 512}, "evaluation": {"episodes": 32, "threshold": 0.99}}


def attempted(home, spec, skill):
    return begin(home, spec, skill).run, resolve(skill, spec)


def train_on(home, run, *, stop_at=None):
    updates = []
    end = train(
        home, run, should_stop=lambda: stop_at is not None and len(updates) >= stop_at, on_update=updates.append
    )
    return end, updates


def test_a_sealed_run_is_returned_as_it_is(home):
    run, config = attempted(home, make_spec("seal", "make_b"), "make_b")
    path = prepare(home, run, config)
    before = {p.name: p.stat().st_mtime_ns for p in path.rglob("*")}
    assert prepare(home, run, config) == path
    assert {p.name: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_a_sealed_directory_holds_the_plan_the_remap_the_configuration_and_the_seed(home):
    run, config = attempted(home, make_spec("seal", "make_b"), "make_b")
    directory = SkillRunDirectory(prepare(home, run, config))
    plan = json.loads(directory.plan.read_text())
    assert [step["skill"] for step in plan["steps"]] == ["dig_a", "goto_bench", "make_b"]
    assert directory.remap.is_file() and directory.module.is_file() and directory.seed.is_dir()
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        assert record.plan.as_dict() == {name: plan[name] for name in ("target", "steps")}
        heads = {e.global_index: e.head.id if e.head else None for e in registry.library.experts()}
    assert record.seeds == {index: heads[index] for index in record.remap}
    told = json.loads(directory.config.read_text())
    views = {"canonical_view": True, "compass": True}
    assert told["prior_knowledge"]["make_b"] == {"target": "bench", "actions": "all"} | views
    assert told["seeded_from"]["make_b"] == "initialised"


def test_a_stopped_run_resumes_and_ends_as_if_nothing_had_happened(home, tmp_path):
    spec = make_spec("stop", "make_b", training={"frames": 3_000}, evaluation={"episodes": 64})
    run, config = attempted(home, spec, "make_b")
    other = copy_home(home, tmp_path / "other")
    drive(other, run, config)

    prepare(home, run, config)
    end, updates = train_on(home, run, stop_at=3)
    assert end == "stopped" and [u.update for u in updates] == [1, 2, 3]
    assert train_on(home, run, stop_at=0) == ("stopped", []), "stopped again before it could do anything"
    end, updates = train_on(home, run, stop_at=2)
    assert [u.update for u in updates] == [4, 5]
    drive(home, run, config)
    assert facts(home, run) == facts(other, run)


def test_a_process_that_was_taken_for_dead_saves_nothing_once_another_has_begun(home):
    """Its machine comes back while the run goes on elsewhere, where its lock was not seen."""
    spec = make_spec("zombie", "make_b", training={"frames": 40_000, "checkpoint_updates": 2})
    run, config = attempted(home, spec, "make_b")
    with Registry.open(home) as registry:
        zombie = registry.runs.claim(run)
    directory = SkillRunDirectory(prepare(home, run, config, epoch=zombie))

    def taken_over(report):
        if report.update == 3:
            with Registry.open(home) as registry:
                registry.runs.claim(run)

    with pytest.raises(ConflictError, match=r"taken over by another process \(claim 2, this one has 1\)"):
        train(home, run, should_stop=lambda: False, on_update=taken_over, epoch=zombie)
    assert [path.name for path in directory.checkpoints.iterdir()] == ["step-000000000002"]
    for stage in (evaluate, process):
        with pytest.raises(ConflictError):
            stage(home, run, epoch=zombie)
    with Registry.open(home) as registry:
        assert registry.skill_runs.get(run).verdict is None and registry.skill_runs.looks(run) == []


def test_a_directory_that_another_process_has_sealed_is_not_thrown_away_by_one_taken_for_dead(home):
    run, config = attempted(home, make_spec("zombie", "make_b"), "make_b")
    with Registry.open(home) as registry:
        zombie, owner = registry.runs.claim(run), registry.runs.claim(run)
    directory = SkillRunDirectory(prepare(home, run, config, epoch=owner))
    with Registry.open(home) as registry:
        assert registry.skill_runs.get(run).seeds is not None
    train_on(home, run, stop_at=1)
    directory.config.unlink()  # so that the other has something to do, as if it had looked before it was sealed
    with pytest.raises(ConflictError):
        prepare(home, run, config, epoch=zombie)
    assert [path.name for path in directory.checkpoints.iterdir()] == ["step-000000000001"]
    assert not [path for path in directory.path.parent.iterdir() if ".tmp-" in path.name]


def changed(skill):
    """The same skill by another definition: another identity."""
    return dataclasses.replace(skill, program=Program(skill.program.done, f"{skill.program.reward} + 0.1"))


@pytest.mark.parametrize("what", ["dig_a", "make_b"])
def test_a_run_ends_by_the_definitions_it_began_with_though_the_knowledge_changes_meanwhile(home, tmp_path, what):
    spec = make_spec("edited", "make_b", training={"frames": 6_000}, evaluation={"episodes": 64, "threshold": 0.3})
    run, config = attempted(home, spec, "make_b")
    other = copy_home(home, tmp_path / "other")
    drive(other, run, config)

    prepare(home, run, config)
    train_on(home, run, stop_at=2)
    with Registry.open(home) as registry:
        before = registry.skills.get("edited", what).identity
        registry.campaigns.record(spec, KNOWLEDGE.skills | {what: changed(KNOWLEDGE.skills[what])})
        assert registry.skills.get("edited", what).identity != before
    assert drive(home, run, config).verdict == "learned"
    assert facts(home, run) == facts(other, run)
    with Registry.open(home) as registry:
        assert not registry.skills.facts("edited")[what].learned, "what its name means now is still to be learned"
        assert registry.library.bundle(before) is not None


def test_a_definition_that_changes_before_its_run_is_prepared_is_trained_as_it_was_when_the_attempt_began(home):
    spec = make_spec("edited", "make_b")
    run, config = attempted(home, spec, "make_b")
    with Registry.open(home) as registry:
        registry.campaigns.record(spec, KNOWLEDGE.skills | {"make_b": changed(KNOWLEDGE.skills["make_b"])})
    told = json.loads(SkillRunDirectory(prepare(home, run, config)).plan.read_text())["skills"]["make_b"]
    assert told == KNOWLEDGE.skills["make_b"].as_dict()


def test_metrics_behind_the_checkpoint_and_a_torn_last_line_are_cut_on_resume(home, caplog):
    caplog.set_level("INFO")
    run, config = attempted(home, make_spec("torn", "make_b", training={"frames": 2_000}), "make_b")
    directory = SkillRunDirectory(prepare(home, run, config))
    _, updates = train_on(home, run, stop_at=3)
    assert updates[0].success is None and "not yet known" in updates[0].said
    assert updates[0].said in caplog.text and "nan" not in caplog.text
    kept = directory.metrics.read_bytes()
    directory.metrics.write_bytes(kept + kept.splitlines()[-1].replace(b'"update": 3', b'"update": 4') + b'\n{"upda')
    train_on(home, run, stop_at=1)
    lines = directory.metrics.read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:3]) == kept
    assert [json.loads(line)["update"] for line in lines] == [1, 2, 3, 4]


def damage_the_latest_checkpoint(home, run):
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
    directory = home.run_directory(record.campaign, record.skill, record.ordinal)
    steps = sorted(directory.checkpoints.glob("step-*"))
    largest = max((p for p in steps[-1].rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    return [int(step.name.removeprefix("step-")) for step in steps]


def test_a_truncated_checkpoint_is_told_and_the_one_before_leads_to_the_same_end(home, tmp_path, caplog):
    spec = make_spec("torn", "make_b", training={"frames": 2_000, "checkpoint_updates": 2}, evaluation={"episodes": 64})
    run, config = attempted(home, spec, "make_b")
    other = copy_home(home, tmp_path / "other")
    drive(other, run, config)

    prepare(home, run, config)
    train_on(home, run, stop_at=5)
    assert damage_the_latest_checkpoint(home, run) == [4, 5]
    with caplog.at_level(logging.WARNING):
        _, updates = train_on(home, run, stop_at=1)
    assert updates[0].update == 5
    assert "step-000000000005" in caplog.text and "going back to the checkpoint before" in caplog.text
    drive(home, run, config)
    assert facts(home, run) == facts(other, run)


def test_what_was_judged_is_published_though_its_checkpoint_was_damaged_in_between(home, tmp_path):
    """Otherwise the versions before it would get its verdict."""
    spec = make_spec("torn", "make_b", training={"frames": 2_000, "checkpoint_updates": 3}, evaluation={"episodes": 64})
    run, config = attempted(home, spec, "make_b")
    prepare(home, run, config)
    train_on(home, run)
    evaluate(home, run)
    assert verdict(home, run) == "failed"
    other = copy_home(home, tmp_path / "other")
    process(other, run)

    damage_the_latest_checkpoint(home, run)
    assert verdict(home, run) is None
    with pytest.raises(StorageError, match="no verdict yet"):
        process(home, run)
    drive(home, run, config)
    assert facts(home, run) == facts(other, run)


def test_a_look_is_taken_once_for_a_checkpoint(home):
    run, config = attempted(home, make_spec("once", "make_b", **TINY), "make_b")
    prepare(home, run, config)
    with pytest.raises(StorageError, match="no checkpoint"):
        evaluate(home, run)
    train_on(home, run)
    look = evaluate(home, run)
    assert evaluate(home, run) == look
    with Registry.open(home) as registry:
        assert registry.skill_runs.looks(run) == [look]


def test_a_second_process_stage_changes_nothing(home):
    run, config = attempted(home, make_spec("twice", "make_b", **TINY), "make_b")
    outcome = drive(home, run, config)
    before = facts(home, run)
    assert process(home, run) == outcome == drive(home, run, config)
    assert facts(home, run) == before


def test_a_run_that_does_not_learn_moves_no_head_and_leaves_its_evidence(home):
    with Registry.open(home) as registry:
        heads = {expert.name: expert.head for expert in registry.library.experts()}
    run, outcome = learn(home, make_spec("tiny", "make_b", **TINY), "make_b")
    assert outcome.verdict == "failed" and outcome.success < 0.5
    assert {merge.action for merge in outcome.merges} == {"kept"}
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        assert "of 512 frames and 1 look gave a best bound of" in record.reason
        assert {e.name: e.head for e in registry.library.experts()} == heads | {"make_b": None}
        assert registry.library.bundle(record.identity) is None
        assert [look.frames for look in registry.skill_runs.looks(run)] == [512]
        made = [v for index in record.remap for v in registry.library.versions(index) if v.run == run]
        fact = registry.skills.facts("tiny")["make_b"]
    assert fact.failed and fact.cause == "verdict"
    assert len(made) == 3 and all(get(home, version.content) for version in made)


@pytest.fixture
def without_grace(monkeypatch):
    """A forecast is acted on in a run of few frames too."""
    monkeypatch.setattr("flowrl_core.learning.forecast._GRACE_FRAMES", 0)


HOPELESS = {"training": {"frames": 30_000, "learning_rate": 1e-9, "checkpoint_updates": 1_000}}


def test_a_hopeless_run_ends_early_with_a_look_and_says_why(home, without_grace):
    run, outcome = learn(home, make_spec("hopeless", "make_b", **HOPELESS), "make_b")
    with Registry.open(home) as registry:
        looks, record = registry.skill_runs.looks(run), registry.skill_runs.get(run)
    assert outcome.verdict == "failed" and 10_000 <= record.run_frames < 20_000
    assert [look.frames for look in looks] == [record.run_frames]
    said = rf"hopeless: at {record.run_frames:,} of 30,000 frames its success was 0\.\d\d and the forecast for the end "
    assert re.match(said + r"0\.\d\d; 0\.75 was needed", record.reason) and outcome.reason == record.reason


def test_a_hopeless_run_that_is_stopped_on_its_way_ends_as_it_would_have(home, without_grace, tmp_path):
    run, config = attempted(home, make_spec("hopeless", "make_b", **HOPELESS), "make_b")
    other = copy_home(home, tmp_path / "other")
    drive(other, run, config)
    for updates in (9, 20, 11):
        stopped = iter([*[False] * updates, True])
        assert drive(home, run, config, should_stop=lambda stopped=stopped: next(stopped)) is None
    train_on(home, run)
    assert drive(home, run, config).verdict == "failed"
    assert facts(home, run) == facts(other, run)


def test_a_run_that_is_told_to_goes_on_without_hope(home, without_grace):
    spec = make_spec("stubborn", "make_b", **HOPELESS, evaluation={"stop_hopeless": False})
    run, outcome = learn(home, spec, "make_b")
    assert (outcome.verdict, outcome.run_frames >= 30_000) == ("failed", True)
    assert "hopeless" not in outcome.reason


def test_an_ended_run_leaves_its_records_and_no_directory(home):
    run, _ = learn(home, make_spec("kept", "make_b", **TINY), "make_b")
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
    assert not home.run_directory("kept", "make_b", record.ordinal).path.exists()
    kept = {path.name for path in home.archived_run("kept", "make_b", record.ordinal).path.iterdir()}
    assert kept == {"module.py", "config.json", "plan.json", "remap.json", "metrics.jsonl", "timing.json"}


def test_a_run_without_a_verdict_is_not_processed(home):
    run, config = attempted(home, make_spec("early", "make_b", **TINY), "make_b")
    prepare(home, run, config)
    with pytest.raises(StorageError, match="no verdict yet"):
        process(home, run)


def test_another_width_than_the_experts_is_refused_and_nothing_is_written(home):
    run, config = attempted(home, make_spec("wide", "make_b", training={"width": 48}), "make_b")
    with pytest.raises(InputError, match="width: the expert of dig_a .* has 32, this run 48"):
        prepare(home, run, config)
    assert not (home.runs / "wide").exists()
    with Registry.open(home) as registry:
        assert registry.skill_runs.get(run).plan is None
        assert "make_b" not in {expert.name for expert in registry.library.experts()}


def test_a_skill_can_be_learned_with_its_declared_actions_only(home):
    run, config = attempted(home, make_spec("masks", "make_b", training={"action_masks": True}), "make_b")
    told = json.loads(SkillRunDirectory(prepare(home, run, config)).config.read_text())["prior_knowledge"]
    assert told["make_b"]["actions"] == list(KNOWLEDGE.skills["make_b"].actions) == ["left", "right", "make_b"]
    assert drive(home, run, config).success >= 0.95
