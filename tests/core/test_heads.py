"""Siblings move heads; a head that got worse at what its skill was learned for is not where the next run starts."""

import dataclasses
import json
import sqlite3

import numpy as np
import pytest
from corridor_runs import KNOWLEDGE, begin, copy_home, drive, learn, make_spec

from flowrl_core.compiled.cache import compilations
from flowrl_core.programs.model import Program
from flowrl_core.skills.model import Linear
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.directory import SkillRunDirectory
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.storage.checkpoints import content_hash
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

SPEC = make_spec("heads", "make_b", "make_d")
SIBLING = make_spec("sibling", "make_o")
# A make_o that walks to the bench itself: its plan is dig_a -> make_o, shorter than make_b's.
MAKE_O = dataclasses.replace(
    KNOWLEDGE.skills["make_o"],
    program=Program("since.o >= n", "gained.o + 0.2 * closer.bench"),
    requirements={"inv.a": Linear(0, 1)},
)
SKILLS = KNOWLEDGE.skills | {"make_o": MAKE_O}


@pytest.fixture(scope="module")
def made_b(basics, tmp_path_factory):
    """A home with a bundle of three experts, which are the heads."""
    home = copy_home(basics, tmp_path_factory.mktemp("heads") / "home")
    assert learn(home, SPEC, "make_b")[1].verdict == "learned"
    return home


@pytest.fixture
def own(made_b, tmp_path):
    return copy_home(made_b, tmp_path / "own")


def make_d(home, **evaluation):
    """The configuration that the next run of make_d is sealed with, and the versions it starts from by skill."""
    overrides = [f"make_d.{name}={value}" for name, value in evaluation.items()]
    run = begin(home, SPEC.model_copy(update={"campaign": "next", "overrides": overrides}), "make_d").run
    config = resolve("make_d", SPEC.model_copy(update={"overrides": overrides}))
    directory = SkillRunDirectory(prepare(home, run, config))
    with Registry.open(home) as registry:
        seeds = {e.name: registry.skill_runs.get(run).seeds.get(e.global_index) for e in registry.library.experts()}
    return json.loads(directory.config.read_text()), seeds


def heads_and_bundle(home):
    """The head of each skill, and the versions by skill that make_b was learned with."""
    with Registry.open(home) as registry:
        experts = registry.library.experts()
        bundle = registry.library.bundle(registry.skills.get("heads", "make_b").identity)
    names = {expert.global_index: expert.name for expert in experts}
    return {e.name: e.head for e in experts}, {names[i]: v for i, v in bundle.versions.items()}, bundle


def sibling_ends(home, change):
    """A sibling's run is learned by the record; `change` makes of dig_a's parameters what the run left of them."""
    run = begin(home, SIBLING, "make_o", skills=SKILLS).run
    prepare(home, run, resolve("make_o", SIBLING))
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        dig, _ = record.remap
        params = get(home, registry.library.head(dig).content)
        contents = dict(zip(record.remap, (put(home, change(params)), put(home, params)), strict=True))
        merges = registry.skill_runs.commit(
            run,
            verdict="learned",
            run_frames=1_500,
            results=[ExpertResult(index, contents[index], 750, record.seeds[index]) for index in record.remap],
            policy="most_frames",
            bundle=BundleFacts(0.9, 0.87, 512, 0.75),
        )
    assert [(merge.name, merge.action) for merge in merges] == [("dig_a", "updated"), ("make_o", "new")]


def scaled(tree, factor):
    return {name: scaled(leaf, factor) for name, leaf in tree.items()} if isinstance(tree, dict) else tree * factor


def noise(tree):
    if isinstance(tree, dict):
        return {name: noise(leaf) for name, leaf in tree.items()}
    return np.random.default_rng(0).normal(size=tree.shape).astype(tree.dtype)


def test_a_spoiled_head_is_found_and_the_next_run_starts_from_the_bundle(own, caplog):
    sibling_ends(own, noise)
    heads, proved, bundle = heads_and_bundle(own)
    assert heads["dig_a"] != proved["dig_a"]
    config, seeds = make_d(own, head_episodes=120)
    report = config["heads"]
    assert report["seeded_from"] == "bundles" and report["episodes"] == 128, "rounded up for 16 environments"
    assert report["upper_bound"] < report["bundle_lower_bound"] == bundle.lower_bound
    assert report["bundle"] == bundle.id
    for name in ("dig_a", "goto_bench"):
        assert config["seeded_from"][name] == proved[name].content
        assert seeds[name] == proved[name].id
    assert config["seeded_from"]["make_d"] == "initialised" and seeds["make_d"] is None
    assert report["successes"]["heads"] < report["successes"]["bundles"] == report["episodes"]
    assert "its heads are worse than the versions of bundles, from which it starts" in caplog.text


def test_heads_stay_where_the_bundle_proved_more_only_because_its_plan_is_shorter(own):
    sibling_ends(own, lambda tree: scaled(tree, 1.0001))
    heads, proved, bundle = heads_and_bundle(own)
    assert heads["dig_a"] != proved["dig_a"]
    with sqlite3.connect(own.registry) as database:  # as a plan would show that leaves out a hard step
        database.execute("UPDATE bundles SET lower_bound = 2 WHERE id = ?", [bundle.id])
    config, seeds = make_d(own)
    report = config["heads"]
    assert report["upper_bound"] < report["bundle_lower_bound"]
    assert report["successes"]["heads"] >= report["successes"]["bundles"]
    assert report["seeded_from"] == "heads" and seeds["dig_a"] == heads["dig_a"].id


def test_a_run_from_the_bundle_learns_and_heals_the_head(own):
    sibling_ends(own, noise)
    spoiled = heads_and_bundle(own)[0]["dig_a"]
    assert learn(own, SPEC, "make_d")[1].verdict == "learned"
    healed = heads_and_bundle(own)[0]["dig_a"]
    with Registry.open(own) as registry:
        assert registry.library.version(healed.parent).content != spoiled.content


def test_a_head_that_a_sibling_moved_and_did_not_spoil_is_used(own):
    run = begin(own, SIBLING, "make_o", skills=SKILLS).run
    assert drive(own, run, resolve("make_o", SIBLING)).verdict == "learned"
    heads, proved, _ = heads_and_bundle(own)
    assert heads["dig_a"] != proved["dig_a"], "the sibling's training moved it"
    config, seeds = make_d(own)
    assert config["heads"]["seeded_from"] == "heads"
    assert config["heads"]["upper_bound"] >= config["heads"]["bundle_lower_bound"]
    for name in ("dig_a", "goto_bench"):
        assert config["seeded_from"][name] == heads[name].content and seeds[name] == heads[name].id


def test_heads_that_are_what_the_bundle_measured_are_not_measured_again(own):
    heads, proved, _ = heads_and_bundle(own)
    assert heads == proved
    config, _ = make_d(own)
    assert config["heads"] is None
    assert {name: config["seeded_from"][name] for name in ("dig_a", "goto_bench")} == {
        name: heads[name].content for name in ("dig_a", "goto_bench")
    }


def test_without_episodes_for_heads_even_spoiled_ones_are_used(own):
    sibling_ends(own, noise)
    heads, _, _ = heads_and_bundle(own)
    config, _ = make_d(own, head_episodes=0)
    assert config["heads"] is None and config["seeded_from"]["dig_a"] == heads["dig_a"].content


def test_measuring_heads_compiles_nothing_and_changes_no_version(own, learner):
    sibling_ends(own, noise)
    before, stored = compilations(), sorted(p.name for p in own.versions.iterdir())
    make_d(own)
    assert compilations() == before
    assert sorted(p.name for p in own.versions.iterdir()) == stored
    assert all(content_hash(get(own, name)) == name for name in stored)
