"""A home of the version before (d9fb884): all that was learned is there, and what was under way goes on."""

import json
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from corridor_runs import drive
from upgrade_home import KNOWN, is_bit_equal, unpack

from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.stages.skill.assessment import assess
from flowrl_core.stages.skill.comparison import play, setup_of
from flowrl_core.stages.upkeep.families import FAMILIES
from flowrl_core.stages.upkeep.housekeeping import find_garbage, remove_garbage
from flowrl_core.storage.atomic import is_temporary
from flowrl_core.storage.backup import backup, restore
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.registry import Registry

LEARNED = KNOWN["registry"]["bundles"]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("upgrade"))


@pytest.fixture
def home(unpacked, tmp_path, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    shutil.copytree(unpacked, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def equipped(home, compiled):
    """The home with compiled learners, which are not the test's own."""
    home.cache.symlink_to(compiled)
    return home


def library(registry):
    """What was learned, as the fixture tells it."""
    experts = {record.global_index: record for record in registry.library.experts()}
    name_of = {index: record.name for index, record in experts.items()}
    bundles = {record.name: registry.library.bundle(record.identity) for record in experts.values()}
    return {
        "bundles": {
            name: {name_of[index]: version.content for index, version in bundle.versions.items()}
            for name, bundle in bundles.items()
            if bundle is not None
        },
        "heads": {record.name: record.head.content for record in experts.values() if record.head},
        "versions": {
            record.name: [{"content": one.content, "frames": one.frames} for one in registry.library.versions(index)]
            for index, record in experts.items()
        },
    }


def states(registry):
    """The verdicts that stand in each campaign, of runs of its own."""
    found = {}
    for campaign in registry.campaigns.all():
        runs = [
            run
            for record in registry.skills.of(campaign.name).values()
            for run in registry.skill_runs.of(record.identity)
        ]
        found[campaign.name] = {run.skill: run.verdict for run in runs if run.verdict and run.campaign == campaign.name}
    return found


def evaluations(registry):
    """Each evaluation that was recorded, with the bundle whose plan was played, and what came of it."""
    content = {
        v.id: v.content for expert in registry.library.experts() for v in registry.library.versions(expert.global_index)
    }
    for skill in LEARNED:
        bundle = registry.library.bundle(registry.skills.get("learned", skill).identity)
        for one in registry.evaluations.of(bundle.identity):
            versions = {index: content[version] for index, version in one.versions.items()}
            yield bundle, versions, one.episodes, one.worlds, (one.successes, one.steps)
        look = registry.skill_runs.looks(bundle.run)[-1]
        versions = {index: version.content for index, version in bundle.versions.items()}
        yield bundle, versions, look.episodes, look.worlds, (look.successes, look.steps)


def played(home, registry, bundle, versions, episodes, worlds):
    """What came of the same episodes now."""
    found = play(home, setup_of(registry, bundle), versions, episodes, np.array(worlds, np.uint32))
    shares = np.array(found.step_successes) / np.maximum(found.step_attempts, 1)
    return found.successes, tuple(float(share) for share in shares)


@pytest.mark.parametrize("way", [Registry.read, Registry.open], ids=["read", "opened"])
def test_the_library_is_what_it_was(home, way):
    with way(home) as registry:
        assert library(registry) == {name: KNOWN["registry"][name] for name in ("bundles", "heads", "versions")}
        assert states(registry) == KNOWN["registry"]["states"]
        assert {attempt.name for attempt in registry.attempts.outstanding("killed")} == {"make_c", "make_d"}
        assert [attempt.name for attempt in registry.attempts.outstanding("asked")] == ["make_e"]


def test_the_shipped_skills_are_those_that_were_learned(home):
    """Or a campaign that goes on would learn them again."""
    now = {name: skill.identity("corridor") for name, skill in load_knowledge(shipped("corridor")).skills.items()}
    assert now == KNOWN["registry"]["identities"]


def test_a_backup_of_it_is_whole(home, tmp_path):
    backup(home, tmp_path / "backup", FAMILIES)
    restored = Home(tmp_path / "restored")
    restore(tmp_path / "backup", restored, FAMILIES)
    with Registry.read(restored) as registry:
        assert library(registry) == {name: KNOWN["registry"][name] for name in ("bundles", "heads", "versions")}


def test_housekeeping_takes_nothing_that_goes_on(home):
    def needed():
        found = [path.relative_to(home.root) for top in (home.runs, home.versions) for path in top.rglob("*")]
        return {path for path in found if not any(is_temporary(Path(part)) for part in path.parts)}

    before = needed()
    later = time.time() + 1_000 * 86_400
    with Registry.open(home) as registry:
        found = find_garbage(home, registry, keep_days=30, now=later)
        removed = remove_garbage(home, registry, found, keep_days=30, now=later)
    assert {one.kind for one in removed} - {"leftovers"} == {"records"}
    assert needed() == before


@pytest.mark.long
def test_bundles_and_heads_play_the_same_episodes_to_the_same_end(equipped):
    with Registry.open(equipped) as registry:
        cases = list(evaluations(registry))
        assert len(cases) == 9 and len({case[-1] for case in cases}) > 5, "what is always won shows nothing"
        for *case, came in cases:
            now = played(equipped, registry, *case)
            assert now == came if is_bit_equal() else now[0] / case[2] == pytest.approx(came[0] / case[2], abs=0.1)


@pytest.mark.long
def test_a_bundle_is_measured_again(equipped):
    found = assess(equipped, "learned", "make_b", of="bundle", episodes=256)
    assert found.is_still_learned and found.evaluation > len(KNOWN["registry"]["evaluations"])


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_from_its_checkpoint_with_its_experts_in_new_episodes(equipped, caplog):
    known, directory = KNOWN["killed"], equipped.run_directory("killed", "make_c", 1)
    before = directory.metrics.read_bytes().splitlines()
    whole = [path for path in directory.checkpoints.glob("step-*") if not is_temporary(path)]
    step = max(int(path.name.removeprefix("step-")) for path in whole)
    with Registry.open(equipped) as registry:
        (run,) = registry.skill_runs.of(registry.skills.get("killed", "make_c").identity)
        looks = registry.skill_runs.looks(run.id)
    assert (run.verdict, looks, len(before) > step >= 10) == (None, [], True)

    with caplog.at_level(logging.WARNING):
        outcome = drive(equipped, run.id, run.config)
    assert "learner.playing, learner.snapshots, curve begin anew" in caplog.text

    after = equipped.archived_run("killed", "make_c", 1).metrics.read_bytes().splitlines()
    assert after[:step] == before[:step], "with their times: they were not trained again"
    assert outcome.verdict == known["verdict"] and len(after) > step
    # Its experts had learned the steps before; untrained ones would need as many updates again.
    assert json.loads(after[step])["steps"][:2] == pytest.approx([1.0, 1.0], abs=0.05)
    with Registry.open(equipped) as registry:
        look = registry.skill_runs.looks(run.id)[0]
    assert (look.episodes, list(look.worlds)) == (known["looks"][0]["episodes"], known["looks"][0]["worlds"])
