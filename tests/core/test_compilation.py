"""Programs are compiled once for all skills of the same shapes, whoever comes first."""

import dataclasses
import importlib.metadata
import shutil

import corridor_runs
import pytest

from flowrl_core.stages import compilation
from flowrl_core.stages.compilation import compiled_learner, is_whole
from flowrl_core.storage.versions import get


def counts(answer):
    return [skill["compilations"] for skill in answer["skills"]]


def test_two_cold_processes_build_one_cache_and_both_learn(cold_start):
    assert [[skill["verdict"] for skill in answer["skills"]] for answer in cold_start.answers] == [["learned"] * 2] * 2
    (first_a, _), (first_b, _) = sorted(map(counts, cold_start.answers))
    assert first_a == [0, 0] and first_b[0] == first_b[1] > 0
    learners = cold_start.homes[0].cache / "learners"
    assert len(list(learners.iterdir())) == 1, "one cache, no lock and nothing unfinished beside it"


def test_the_second_skill_of_a_process_compiles_nothing(cold_start):
    for answer in cold_start.answers:
        first, second = counts(answer)
        assert second == first


def test_programs_compiled_here_and_programs_loaded_make_the_same_versions(cold_start):
    for first, second in zip(*(answer["skills"] for answer in cold_start.answers), strict=True):
        a, b = cold_start.homes
        assert corridor_runs.facts(a, first["run"]) == corridor_runs.facts(b, second["run"])


def test_the_first_skill_of_a_fresh_process_compiles_nothing_with_a_warm_cache(home, tmp_path):
    spec = corridor_runs.make_spec("warm", "make_b", training={"seed": 3, "learning_rate": 2e-3})
    child = corridor_runs.start(corridor_runs.learn_in_child, home, spec, ["make_b"], report=tmp_path / "report.json")
    assert counts(child.answer()) == [[0, 0]]


def test_the_same_shapes_give_the_same_learner(home, learner):
    assert compiled_learner(home.cache, learner.shapes) is learner


def test_a_version_can_be_read_where_it_was_published(cold_start):
    home = cold_start.homes[1]
    for directory in home.versions.iterdir():
        assert get(home, directory.name)["params"]


@pytest.fixture
def own_cache(basics, home):
    """The home's learner in files of the test's own, which it may damage."""
    home.cache.unlink()
    shutil.copytree(basics.cache, home.cache)
    (directory,) = (home.cache / "learners").iterdir()
    return directory


@pytest.mark.parametrize("file", ["*.stablehlo", "xla/*-cache", "worlds.npz", "sizes.json"])
def test_files_that_were_cut_short_or_lost_are_noticed(own_cache, file):
    assert is_whole(own_cache)
    path = next(own_cache.glob(file))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert not is_whole(own_cache)
    path.unlink()
    assert not is_whole(own_cache)


@pytest.mark.long
def test_a_damaged_learner_is_made_again_whole(own_cache, home, tmp_path):
    next(own_cache.glob("xla/*-cache")).write_bytes(b"")
    (own_cache.parent / f"{own_cache.name}.tmp-killed").mkdir()
    spec = corridor_runs.make_spec("cut", "make_b", training={"seed": 3, "learning_rate": 2e-3})
    child = corridor_runs.start(corridor_runs.learn_in_child, home, spec, ["make_b"], report=tmp_path / "report.json")
    assert counts(child.answer())[0][0] > 0
    assert is_whole(own_cache)
    assert list(own_cache.parent.iterdir()) == [own_cache], "what a killed builder left is swept"


def test_other_shapes_another_jax_and_other_code_are_other_files(learner, monkeypatch, tmp_path):
    shapes = learner.shapes
    seen = [compilation.fingerprint(shapes)]
    assert compilation.fingerprint(shapes) == seen[0]
    seen.append(compilation.fingerprint(dataclasses.replace(shapes, num_envs=shapes.num_envs * 2)))

    version = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: version(name) + "1" * (name == "jaxlib"))
    seen.append(compilation.fingerprint(shapes))

    monkeypatch.setattr("importlib.metadata.version", version)
    copied = shutil.copytree(compilation._ROOT, tmp_path / "flowrl_core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compilation, "_ROOT", copied)
    assert compilation.fingerprint(shapes) == seen[0]
    for changed in ("learning/ppo.py", "trees.py"):
        with (copied / changed).open("a") as file:
            file.write("# another line")
        seen.append(compilation.fingerprint(shapes))
    assert len(set(seen)) == len(seen) == 5
