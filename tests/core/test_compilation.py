"""Programs are compiled once for all skills of the same shapes, whoever comes first."""

import dataclasses
import importlib.metadata
import shutil

import corridor_runs
import pytest

from flowrl_core.compiled.cache import compiled_learner, is_whole
from flowrl_core.compiled.fingerprint import code_digest, fingerprint, import_closure
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


def test_other_shapes_and_another_jax_are_other_files(learner, monkeypatch):
    shapes = learner.shapes
    seen = [fingerprint(shapes)]
    assert fingerprint(shapes) == seen[0]
    seen.append(fingerprint(dataclasses.replace(shapes, num_envs=shapes.num_envs * 2)))

    version = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: version(name) + "1" * (name == "jaxlib"))
    seen.append(fingerprint(shapes))
    assert len(set(seen)) == len(seen) == 3


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of sources that nothing imports, as a function that writes one of them."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"traced_{tmp_path.name.replace('-', '_')}"

    def write(module, text):
        path = tmp_path / name / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PACKAGE", name))
        return f"{name}.{module.replace('/', '.')}"

    write("__init__", "")
    write("game/__init__", "from . import rules")
    write("game/rules", "STEP = 1")
    write("game/other", "STEP = 2")
    write("late", "def late(): ...")
    write("types_only", "")
    text = "import numpy\nfrom typing import TYPE_CHECKING\nfrom PACKAGE import game\n"
    text += "if TYPE_CHECKING:\n    from PACKAGE.types_only import T\n"
    write("traced", text + "def run():\n    from PACKAGE.late import late\n")
    return write


@pytest.mark.parametrize(
    ("module", "counts"),
    [("traced", True), ("game/__init__", True), ("game/rules", True), ("late", True), ("__init__", True)]
    + [("game/other", False), ("types_only", False), ("game/new", False)],
)
def test_code_counts_where_the_traced_functions_import_it_and_nowhere_else(package, module, counts):
    root = package("unrelated", "").replace("unrelated", "traced")
    before = code_digest([root])
    package(
        module, "from . import rules\n# another line" if module == "game/__init__" else "from PACKAGE import game  # 2"
    )
    assert (code_digest([root]) != before) == counts


def test_what_a_learner_is_traced_from_is_found_wherever_it_lies():
    found = import_closure(["flowrl_core.compiled.functions", "flowrl_core.envs.corridor"])
    wanted = (
        "learning.ppo",
        "learning.rollout",
        "envs.worlds",
        "envs.corridor",
        "networks.moe",
        "programs.tables",
        "trees",
    )
    assert {f"flowrl_core.{name}" for name in wanted} <= found.keys()
    assert not any(name.startswith(("flowrl_core.storage", "flowrl_core.stages", "flowrl_core.llm")) for name in found)
