"""Files that were cut short or changed behind FlowRL's back: it is said, and what was there before is used."""

import json
import logging

import pytest
from corridor_runs import begin, copy_home, drive, facts, learn, make_spec

from flowrl_core.errors import CorruptError
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.directory import SkillRunDirectory
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.train import train
from flowrl_core.storage.registry import Registry

pytestmark = pytest.mark.long

SPEC = make_spec("torn", "make_b", training={"frames": 2_000, "checkpoint_updates": 2}, evaluation={"episodes": 64})


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage(directory, how):
    """Change the largest file of a checkpoint or a version."""
    largest = max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(how(largest.read_bytes()))


def begun(home):
    run, config = begin(home, SPEC, "make_b").run, resolve("make_b", SPEC)
    return run, config, SkillRunDirectory(prepare(home, run, config))


@pytest.fixture
def undisturbed(home, tmp_path):
    """What a run of make_b leaves that nothing happened to."""
    other = copy_home(home, tmp_path / "other")
    run, config, _ = begun(other)
    drive(other, run, config)
    return facts(other, run)


@pytest.mark.parametrize("how", [truncated, flipped])
def test_a_damaged_seed_is_made_again_from_the_same_versions(home, undisturbed, how, caplog):
    run, config, directory = begun(home)
    damage(directory.seed, how)
    with caplog.at_level(logging.WARNING):
        drive(home, run, config)
    assert "seed" in caplog.text and "recreated from the same versions" in caplog.text
    assert facts(home, run) == undisturbed


def test_with_all_checkpoints_damaged_a_run_begins_anew_and_ends_the_same(home, undisturbed, caplog):
    run, config, directory = begun(home)
    updates = []
    train(home, run, should_stop=lambda: len(updates) >= 5, on_update=updates.append)
    steps = sorted(directory.checkpoints.iterdir())
    assert [step.name for step in steps] == ["step-000000000004", "step-000000000005"]
    for step, how in zip(steps, (truncated, flipped), strict=True):
        damage(step, how)
    with caplog.at_level(logging.WARNING):
        drive(home, run, config)
    assert all(step.name in caplog.text for step in steps)
    assert facts(home, run) == undisturbed
    lines = [json.loads(line) for line in next(home.archive.glob("torn/*/metrics.jsonl")).read_bytes().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, len(lines) + 1)), "no point is lost or doubled"


@pytest.fixture
def trained(home):
    """A home in which make_b was learned, so that dig_a has two versions: its first one, and its head."""
    learn(home, make_spec("before", "make_b"), "make_b")
    with Registry.open(home) as registry:
        dig = next(expert for expert in registry.library.experts() if expert.name == "dig_a")
        first, head = registry.library.versions(dig.global_index)
    assert dig.head == head and head.parent == first.id
    return home, first, head


def start_of_make_c(home):
    run = begin(home, make_spec("after", "make_c"), "make_c").run
    prepare(home, run, resolve("make_c", make_spec("after", "make_c")))
    with Registry.open(home) as registry:
        return registry.skill_runs.get(run).seeds


@pytest.mark.parametrize("how", [truncated, flipped])
def test_for_a_damaged_head_the_version_it_was_made_from_is_used_and_it_says_so(trained, how, caplog):
    home, first, head = trained
    damage(home.version(head.content), how)
    with caplog.at_level(logging.WARNING):
        seeds = start_of_make_c(home)
    assert seeds[first.expert] == first.id
    assert head.content in caplog.text and f"starting from version {first.id} instead of {head.id}" in caplog.text


def test_a_version_that_a_bundle_holds_stands_in_where_all_before_the_head_are_damaged_too(trained):
    home, first, head = trained
    spec = make_spec("frozen", "make_d", limits={"merge": "frozen"})
    learn(home, spec, "make_d")
    with Registry.open(home) as registry:
        last = registry.library.versions(head.expert)[-1]
        assert registry.library.head(head.expert) == head and last.parent == head.id
    for version in (first, head):
        damage(home.version(version.content), flipped)
    assert start_of_make_c(home)[head.expert] == last.id


def test_without_any_whole_version_nothing_is_started_and_the_remedy_is_named(trained):
    home, first, head = trained
    for version in (first, head):
        damage(home.version(version.content), truncated)
    with pytest.raises(CorruptError, match=f"{head.content} of expert 0 is damaged.*; restore .* from a backup"):
        start_of_make_c(home)
    assert not list(home.runs.glob("after/make_c-*"))


def test_a_head_that_is_damaged_cannot_be_compared_and_is_replaced(trained, caplog):
    home, _, head = trained
    spec = make_spec("after", "make_c", limits={"merge": "evaluated"}, evaluation={"head_episodes": 0})
    run, config = begin(home, spec, "make_c").run, resolve("make_c", spec)
    prepare(home, run, config)
    damage(home.version(head.content), truncated)
    outcome = drive(home, run, config)
    merge = next(merge for merge in outcome.merges if merge.name == "dig_a")
    assert (outcome.verdict, merge.action, merge.measured) == ("learned", "updated", None)
    assert f"expert {merge.expert} is not measured: " in caplog.text and head.content in caplog.text
