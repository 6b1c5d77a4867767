"""What goes and what stays, on homes whose past is made up: runs of three skills without any training."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from flowrl_core.programs.model import Program
from flowrl_core.skills.model import Linear, Plan, Skill, Step
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.stages.upkeep.families import KINDS
from flowrl_core.stages.upkeep.housekeeping import find_garbage, kinds, remove_garbage
from flowrl_core.storage import schema
from flowrl_core.storage.database import make_engine, writing
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.ownership import exclusive, own_run
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

NAMES = ("wood", "table", "pickaxe")
SKILLS = {
    name: Skill(name, "", gain={f"ach.{name}": Linear(0, 1)}, program=Program(f"ach.{name}", f"new_ach.{name}"))
    for name in NAMES
}
SIZES = {"observation_size": 10, "num_actions": 4, "width": 8}
DAY = 86_400.0


def aged(path, days):
    """The path, and all below it, as if it had been written so many days ago."""
    then = time.time() - days * DAY
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then))
    return path


class Past:
    """A home and its registry, in which runs happened."""

    def __init__(self, home, seed=0):
        self.home = home
        self.registry = Registry.open(home)
        self.registry.campaigns.record(CampaignSpec(env="corridor", targets=["pickaxe"]), SKILLS)
        self.rng = np.random.default_rng(seed)
        self.written = {}

    def params(self):
        return {"dense": {"kernel": self.rng.normal(size=(3, 2)).astype(np.float32)}}

    def put(self, params):
        content = put(self.home, params)
        self.written[content] = params
        return content

    def begin(self, name):
        """A sealed, open run of a skill, whose plan has all skills up to it; its experts' global indices."""
        names = NAMES[: NAMES.index(name) + 1]
        attempt = self.registry.skill_runs.begin("default", SKILLS[name].identity("corridor"), new_run=True)
        experts = [self.registry.library.allocate(SKILLS[n].identity("corridor"), **SIZES) for n in names]
        seeds = {e.global_index: e.head.id if e.head else None for e in experts}
        plan = Plan(name, tuple(Step(n, 1) for n in names))
        remap = {index: local for local, index in enumerate(seeds)}
        self.registry.skill_runs.seal(attempt.run, plan=plan, remap=remap, config=SkillConfig(), seeds=seeds)
        return attempt, seeds

    def end(self, attempt, seeds, verdict):
        results = [ExpertResult(index, self.put(self.params()), 10, seed) for index, seed in seeds.items()]
        bundle = BundleFacts(0.9, 0.8, 512, 0.75) if verdict == "learned" else None
        self.registry.skill_runs.commit(
            attempt.run, verdict=verdict, run_frames=100, results=results, policy="most_frames", bundle=bundle
        )
        self.registry.attempts.end(attempt.id, "verdict")

    def run(self, name, verdict):
        self.end(*self.begin(name), verdict)

    def ended_ago(self, run, days):
        with writing(make_engine(self.home.registry_url)) as tx:
            tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run).values(ended_at=time.time() - days * DAY))

    def find(self, **options):
        return find_garbage(self.home, self.registry, **{"keep_days": 30} | options)

    def remove(self, garbage):
        return remove_garbage(self.home, self.registry, garbage, keep_days=30)

    def age_versions(self, days):
        for path in self.home.versions.iterdir():
            aged(path, days)


@pytest.fixture
def past(tmp_path, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    past = Past(Home(tmp_path / "hö me"))
    yield past
    past.registry.close()


def same(a, b):
    return np.array_equal(a["dense"]["kernel"], b["dense"]["kernel"])


def needed(registry):
    """The contents of heads, bundles, open runs' seeds and last failed runs, by the registry's single answers."""
    found = set()
    for expert in registry.library.experts():
        found |= {expert.head.content} if expert.head else set()
        found |= {
            v.content for bundle in registry.library.bundles_with(expert.global_index) for v in bundle.versions.values()
        }
    for name in NAMES:
        for run in registry.skill_runs.of(SKILLS[name].identity("corridor")):
            if run.verdict is None:
                found |= {
                    registry.library.version(version).content for version in run.seeds.values() if version is not None
                }
        failed = [run for run in registry.skill_runs.of(SKILLS[name].identity("corridor")) if run.verdict == "failed"]
        if failed and registry.library.bundle(failed[-1].identity) is None:
            found |= {
                registry.library.version(one.version).content for one in registry.skill_runs.merges(failed[-1].id)
            }
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_needed_loads_bit_equal_afterwards_and_a_second_run_finds_nothing(past, seed):
    dice = random.Random(seed)
    for name in NAMES:
        for _ in range(dice.randrange(3)):
            past.run(name, "failed")
        if name == "pickaxe" and dice.random() < 0.7:
            past.begin(name)  # an open run, seeded from the heads
            break
        past.run(name, "learned")
    young = set()
    for path in past.home.versions.iterdir():
        age = dice.choice([0, 0.9, 1.1, 50])
        aged(path, age)
        young |= {path.name} if age < 1 else set()
    for number in range(4):
        directory = past.home.archived_run("default", "wood", number).path
        directory.mkdir(parents=True)
        aged(directory, dice.choice([1, 29, 31, 400]))

    expected = set(past.written) - needed(past.registry) - young
    found = past.find()
    assert {one.path.name for one in found if one.kind == "versions"} == expected
    assert set(past.remove(found)) == set(found)
    assert past.find() == ()
    for content, params in past.written.items():
        assert past.home.version(content).exists() == (content not in expected)
        if content not in expected:
            assert same(get(past.home, content), params)
    kept = {path.name for path in past.home.archive.glob("*/*")}
    assert len(kept) + sum(one.kind == "records" for one in found) == 4


def test_what_a_failed_skill_may_go_on_from_stays_until_it_is_learned(past):
    contents = []
    for verdict in ("failed", "failed", "learned"):
        past.run("wood", verdict)
        contents += [content for content in past.written if content not in contents]
        past.age_versions(50)
        found = past.find()
        assert {one.path.name for one in found} == set(contents[:-1])
    past.remove(found)
    assert [path.name for path in past.home.versions.iterdir()] == contents[2:]


def test_listing_changes_nothing(past):
    past.put(past.params())
    past.age_versions(50)
    before = sorted(past.home.root.rglob("*"))
    (garbage,) = past.find()
    assert garbage.bytes > 100 and "no result" in garbage.why
    assert sorted(past.home.root.rglob("*")) == before


def test_only_the_kinds_that_are_asked_for_are_found(past):
    past.put(past.params())
    past.age_versions(50)
    assert past.find(what=[kind for kind in KINDS if kind != "versions"]) == ()


def test_the_form_lists_all_kinds():
    assert set(KINDS) == set(kinds())


def test_a_version_that_a_run_writes_again_in_between_stays(past):
    past.put(past.params())
    past.age_versions(50)
    ((content, params),) = past.written.items()
    found = past.find()
    assert past.put(params) == content
    assert past.remove(found) == () and same(get(past.home, content), params)


def test_a_version_that_becomes_a_head_in_between_stays(past):
    past.put(past.params())
    past.age_versions(50)
    ((content, params),) = past.written.items()
    found = past.find()
    attempt, seeds = past.begin("wood")
    past.params = lambda: params
    past.end(attempt, seeds, "learned")
    past.age_versions(50)
    assert past.remove(found) == () and past.registry.library.head(0).content == content


def test_versions_that_are_written_while_others_are_removed_are_all_there(past):
    """Whoever comes first: who writes finds the version, young again, or writes it anew."""
    everything = [past.params() for _ in range(10)]
    for _ in range(4):
        for params in everything:
            past.put(params)
        past.age_versions(50)
        found = past.find()
        assert len(found) == len(everything)
        writer = threading.Thread(target=lambda: [past.put(params) for params in everything])
        writer.start()
        past.remove(found[::-1])
        writer.join()
        assert all(same(get(past.home, content), params) for content, params in past.written.items())


def test_who_takes_a_version_and_who_removes_one_wait_for_each_other(past):
    past.put(past.params())
    past.age_versions(50)
    ((content, params),) = past.written.items()
    found, removed = past.find(), []
    taker = threading.Thread(target=put, args=(past.home, params))
    remover = threading.Thread(target=lambda: removed.append(past.remove(found)))
    with exclusive(past.home.versions_lock, what="the store"):
        taker.start()
        remover.start()
        time.sleep(0.3)
        assert taker.is_alive() and remover.is_alive()
        assert time.time() - past.home.version(content).stat().st_mtime > DAY, "taken only with the lock"
        os.utime(past.home.version(content))
    taker.join()
    remover.join()
    assert removed == [()] and same(get(past.home, content), params)


def left_behind(past, name="wood"):
    """The directory of a run that ended 3 days ago, as its process left it when it died."""
    attempt, seeds = past.begin(name)
    record = past.registry.skill_runs.get(attempt.run)
    directory = past.home.run_directory("default", name, record.ordinal)
    (directory.path / "checkpoints").mkdir(parents=True)
    directory.config.write_text("{}")
    (directory.checkpoints / "big").write_bytes(b"0" * 10_000)
    past.end(attempt, seeds, "failed")
    return directory, past.home.archived_run("default", name, record.ordinal), attempt.run


def test_the_directory_of_an_ended_run_is_archived(past):
    directory, kept, run = left_behind(past)
    assert past.find() == (), "its process may be about to do it"
    past.ended_ago(run, 3)
    (garbage,) = past.find()
    assert (garbage.kind, garbage.path) == ("runs", directory.path) and garbage.bytes > 10_000
    assert past.remove([garbage]) == (garbage,)
    assert not directory.path.exists() and kept.config.read_text() == "{}"
    assert past.find() == (), "its records are new"


def test_the_directory_of_an_ended_run_that_a_process_holds_stays(past):
    directory, _, run = left_behind(past)
    past.ended_ago(run, 3)
    found = past.find()
    with own_run(directory):
        assert past.remove(found) == ()
    assert directory.path.exists()


def test_the_directory_of_an_open_run_stays(past):
    attempt, _ = past.begin("wood")
    directory = past.home.run_directory("default", "wood", past.registry.skill_runs.get(attempt.run).ordinal)
    directory.path.mkdir(parents=True)
    aged(directory.path, 400)
    assert past.find() == ()


def test_leftovers_go_when_they_are_old_and_their_writer_is_dead(past):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    place = past.home.archive / "default"
    place.mkdir(parents=True)

    def leave(name, pid, days):
        path = place / f"{name}.tmp-{pid}-0123abcd"
        path.mkdir()
        (path / "half").write_text("half")
        return aged(path, days)

    old, young, living = leave("old", dead.pid, 2), leave("young", dead.pid, 0.5), leave("living", os.getpid(), 2)
    in_root = past.home.root / f"embedded.json.tmp-{dead.pid}-0123abcd"
    in_root.write_text("half")
    aged(in_root, 2)
    still_growing = leave("growing", dead.pid, 2)
    os.utime(still_growing / "half")
    found = past.find()
    assert {one.path for one in found} == {old, in_root}
    past.remove(found)
    assert {young, living, still_growing} == set(place.iterdir()) and not in_root.exists()


def test_a_learner_that_nobody_used_for_long_goes_unless_somebody_builds_it(past):
    learners = past.home.cache / "learners"
    for name, days in (("used", 5), ("unused", 50)):
        (learners / name).mkdir(parents=True)
        aged(learners / name, days)
    found = past.find()
    assert [one.path for one in found] == [learners / "unused"]
    with exclusive(learners / "unused.lock", what="it"):
        assert past.remove(found) == ()
    assert past.remove(found) == found and (learners / "used").exists()


def test_killed_in_between_it_leaves_a_whole_home(past):
    for _ in range(3):
        past.run("wood", "failed")
    past.run("wood", "learned")
    past.age_versions(50)
    program = (
        "import sys; from pathlib import Path; from flowrl_core.storage.layout import Home\n"
        "from flowrl_core.storage.registry import Registry\n"
        "from flowrl_core.stages.upkeep.housekeeping import find_garbage, remove_garbage\n"
        "home = Home(Path(sys.argv[1]))\n"
        "with Registry.open(home) as registry:\n"
        "    found = find_garbage(home, registry, keep_days=30)\n"
        "    remove_garbage(home, registry, found, keep_days=30)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(past.home.root)],
        env={**os.environ, "FLOWRL_CRASH_AT": "before_removal:2", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert killed.returncode == -signal.SIGKILL
    found = past.find()
    assert len(found) == 2 and past.remove(found) == found
    head = past.registry.library.head(0).content
    assert same(get(past.home, head), past.written[head])


def test_whoever_takes_a_compiled_learner_keeps_it_from_going(basics, learner):
    import corridor_runs

    from flowrl_core.compiled.cache import compiled_learner
    from flowrl_core.compiled.fingerprint import fingerprint
    from flowrl_core.learning.shapes import shapes_of

    shapes = shapes_of("corridor", corridor_runs.TRAINING, 3)
    directory = aged(basics.cache / "learners" / fingerprint(shapes), 50)
    compiled_learner(basics.cache, shapes)
    assert time.time() - directory.stat().st_mtime < DAY
