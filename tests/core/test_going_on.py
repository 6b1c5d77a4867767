"""A failed skill that is tried again goes on from where it stopped, with more frames or other settings."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import sqlalchemy as sa
from corridor_runs import KNOWLEDGE, begin, copy_home, drive, learn, make_spec

from flowrl_core.errors import InputError
from flowrl_core.skills.experts import expert_slice
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.proposals.context import read_context
from flowrl_core.stages.skill.campaign_check import check_campaign
from flowrl_core.stages.skill.directory import SkillRunDirectory, run_directory
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.storage import schema
from flowrl_core.storage.checkpoints import content_hash, load_tree
from flowrl_core.storage.database import make_engine, writing
from flowrl_core.storage.records.library import ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

FEW = ["make_b.frames=2048", "make_b.threshold=0.9"]
MORE = ["make_b.frames=40000"]
SPEC = make_spec("again", "make_b", overrides=FEW)
AGAIN = make_spec("again", "make_b", overrides=MORE, retry=["make_b"])


@pytest.fixture(scope="module")
def failed(basics, tmp_path_factory):
    """A home in which `make_b` has failed with few frames, and the id of the run."""
    home = copy_home(basics, tmp_path_factory.mktemp("failed") / "home")
    run, outcome = learn(home, SPEC, "make_b")
    assert outcome.verdict == "failed"
    return home, run


@pytest.fixture
def own(failed, tmp_path):
    return copy_home(failed[0], tmp_path / "own"), failed[1]


def prepared(home, spec):
    """The run of `make_b` that a start brings, prepared: its id, and what its config.json says."""
    run = begin(home, spec, "make_b").run
    with Registry.open(home) as registry:
        config = resolve("make_b", registry.campaigns.get(spec.campaign).spec)
    return run, json.loads(SkillRunDirectory(prepare(home, run, config)).config.read_text())


def left(home, run):
    """The versions that a run left, by skill."""
    with Registry.open(home) as registry:
        return {merge.name: registry.library.version(merge.version) for merge in registry.skill_runs.merges(run)}


def seeds(home, run):
    """The versions that a run was seeded from, by skill."""
    with Registry.open(home) as registry:
        names = {expert.global_index: expert.name for expert in registry.library.experts()}
        return {names[index]: seed for index, seed in registry.skill_runs.get(run).seeds.items()}


def test_with_more_frames_it_goes_on_from_its_last_version_and_learns(own):
    home, first = own
    before = left(home, first)
    second, config = prepared(home, AGAIN)
    assert config["goes_on_from"] == 1 and config["parameters"]["training"]["frames"] == 40_000
    assert config["parameters"]["evaluation"]["threshold"] == 0.9, "an override that was not given again stays"
    assert config["seeded_from"]["make_b"] == before["make_b"].content
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(second)
    params, _ = load_tree(run_directory(home, record).seed)
    own_expert = before["make_b"].expert
    assert content_hash(expert_slice(params, record.remap[own_expert])) == before["make_b"].content
    assert drive(home, second, record.config).verdict == "learned"
    after = left(home, second)
    with Registry.open(home) as registry:
        (merge,) = [one for one in registry.skill_runs.merges(second) if one.expert == own_expert]
        assert after["make_b"].parent == before["make_b"].id
        assert after["make_b"].frames == before["make_b"].frames + merge.routed_frames
        assert registry.library.head(own_expert) == after["make_b"]
        assert [look.level for look in registry.skill_runs.looks(second)][0] == pytest.approx(0.05 / 4), (
            "of this run alone"
        )


def test_from_scratch_it_begins_anew(own):
    home, first = own
    run, config = prepared(home, AGAIN.model_copy(update={"from_scratch": True}))
    assert config["goes_on_from"] is None and config["seeded_from"]["make_b"] == "initialised"
    assert config["heads"] is None and config["parameters"]["training"]["frames"] == 40_000
    assert seeds(home, run)["make_b"] is None
    with Registry.open(home) as registry:
        heads = {one.name: one.head.id for one in registry.library.experts() if one.head is not None}
    assert {name: seed for name, seed in seeds(home, run).items() if name != "make_b"} == heads


def heads(home):
    """The heads by skill."""
    with Registry.open(home) as registry:
        return {one.name: one.head for one in registry.library.experts() if one.head is not None}


def noise(tree):
    if isinstance(tree, dict):
        return {name: noise(leaf) for name, leaf in tree.items()}
    return np.random.default_rng(0).normal(size=tree.shape).astype(tree.dtype)


def spoiling(home):
    """A run of `make_b` in the campaign `spoilt`, failed by the record, that has made noise of `dig_a`."""
    spec = SPEC.model_copy(update={"campaign": "spoilt"})
    run, _ = prepared(home, spec)
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        names = {one.global_index: one.name for one in registry.library.experts()}
        whole = get(home, heads(home)["goto_bench"].content)
        contents = {index: put(home, noise(whole) if names[index] == "dig_a" else whole) for index in record.remap}
        results = [ExpertResult(index, contents[index], 500, record.seeds[index]) for index in record.remap]
        registry.skill_runs.commit(run, verdict="failed", run_frames=1_500, results=results, policy="most_frames")
        registry.attempts.end(registry.attempts.outstanding("spoilt")[0].id, "verdict")
    return run, spec.model_copy(update={"retry": ["make_b"]})


def test_the_others_start_from_their_heads_where_the_failed_run_has_spoilt_them(home):
    failed, again = spoiling(home)
    run, config = prepared(home, again)
    assert config["heads"]["seeded_from"] == "heads" and config["heads"]["episodes"] == 128
    proven = heads(home)
    assert seeds(home, run) == {name: one.id for name, one in (left(home, failed) | proven).items()}


def test_the_others_start_from_the_failed_run_where_siblings_have_spoilt_the_heads(own):
    home, failed = own
    spoilt, _ = spoiling(home)
    version = left(home, spoilt)["dig_a"]
    with writing(make_engine(home.registry_url)) as tx:
        tx.execute(sa.update(schema.heads).where(schema.heads.c.expert == version.expert).values(version=version.id))
    assert heads(home)["dig_a"] == version
    run, config = prepared(home, AGAIN)
    assert config["heads"]["seeded_from"] == "run"
    assert seeds(home, run) == {name: one.id for name, one in left(home, failed).items()}


def test_a_version_that_is_gone_is_no_obstacle(own, caplog):
    home, first = own
    shutil.rmtree(home.version(left(home, first)["make_b"].content))
    _, config = prepared(home, AGAIN)
    assert config["seeded_from"]["make_b"] == "initialised" and "beginning anew" in caplog.text


def test_without_a_version_of_its_own_it_begins_anew(home):
    run = begin(home, SPEC, "make_b").run
    with Registry.open(home) as registry:
        registry.skill_runs.fail(run, "it diverged")
        registry.attempts.end(registry.attempts.outstanding("again")[0].id, "verdict")
    _, config = prepared(home, AGAIN)
    assert config["goes_on_from"] is None and config["seeded_from"]["make_b"] == "initialised"


def test_from_scratch_says_nothing_without_a_skill_to_retry(home):
    spec = SPEC.model_copy(update={"from_scratch": True})
    with Registry.open(home) as registry, pytest.raises(InputError, match="^from_scratch: there are no skills to ret"):
        check_campaign(read_context(registry, "again", spec, KNOWLEDGE))
