import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flowrl_core.errors import InputError
from flowrl_core.storage.checkpoints import load_tree, save_tree
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.text import folded


def test_every_path_of_a_home_lies_below_its_root(tmp_path: Path) -> None:
    home = Home(tmp_path / "a home with spaces — и")
    paths = [home.registry, home.versions, home.runs, home.archive, home.cache, home.prefect, home.embedded]
    assert all(path.is_relative_to(home.root) for path in paths)
    assert len(set(paths)) == len(paths)
    assert not home.root.exists()


def test_a_home_is_absolute_whatever_the_working_directory_becomes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWRL_HOME", raising=False)
    assert Home.from_environment().root == tmp_path / ".flowrl"
    monkeypatch.setenv("FLOWRL_HOME", "elsewhere")
    assert Home.from_environment().root == tmp_path / "elsewhere"


def test_the_registry_url_is_the_file_unless_the_environment_says_otherwise(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("FLOWRL_REGISTRY_URL", raising=False)
    assert Home(tmp_path).registry_url == f"sqlite:///{tmp_path}/registry.sqlite"
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", "postgresql://somewhere/flowrl")
    assert Home(tmp_path).registry_url == "postgresql://somewhere/flowrl"


@pytest.mark.parametrize("inside", ["", "below/it"])
def test_a_root_that_is_a_file_is_refused(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="is a file"):
        Home(file / inside)


def test_a_run_and_its_archive_are_told_by_campaign_skill_and_ordinal(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = home.run_directory("default", "collect_wood", 2)
    assert run.path == tmp_path / "runs/default/collect_wood-2"
    assert home.archived_run("default", "collect_wood", 2).path == tmp_path / "archive/default/collect_wood-2"
    assert run.owner_lock.parent == run.path.parent


def test_names_that_a_file_system_may_take_for_one_are_told() -> None:
    same = [("Wood", "wood"), ("\u212bngstr\u00f6m", "\u00e5ngstro\u0308m"), ("STRASSE", "stra\u00dfe")]
    assert all(a != b and folded(a) == folded(b) for a, b in same)
    assert folded("wood") != folded("wo0d") and folded("\u03c0") != folded("p")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\\b", "a\nb", "a\0b", "x" * 300])
def test_names_that_are_not_one_directory_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        Home(tmp_path).run_directory(name, "skill", 1)
    with pytest.raises(InputError):
        Home(tmp_path).run_directory("campaign", name, 1)


@pytest.mark.parametrize("name", ["/etc/passwd", "../k.toml", "a/../../k.toml", "k", ".toml", "a\\b.toml", "a\0.toml"])
def test_a_knowledge_base_that_parameters_name_lies_in_the_home(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="knowledge"):
        Home(tmp_path).knowledge_file(name)
    assert Home(tmp_path).knowledge_file("night 1.toml") == tmp_path / "knowledge" / "night 1.toml"


def test_a_home_below_a_working_directory_that_is_gone_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="does not exist.*absolute path"):
        Home(Path("home"))
    assert Home(tmp_path / "home").root == tmp_path / "home"


@pytest.mark.parametrize("name", ["a?b", "a*", "[old]", "a\\b", "caf\udce9"])
def test_a_home_that_libraries_would_look_for_elsewhere_is_refused(tmp_path, name):
    """`?` ends the name of a database in its URL, Orbax looks for patterns, TensorStore reads `\\` as `/`."""
    with pytest.raises(InputError, match="FLOWRL_HOME"):
        Home(tmp_path / name / "home")


def test_a_home_that_the_locale_reads_as_another_encoding_is_refused(tmp_path):
    code = "import sys; from flowrl_core.storage.layout import Home; Home(sys.argv[1])"
    plain = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for name, said in {"café": "LC_ALL=C.UTF-8", "cafe": ""}.items():
        command = [sys.executable, "-c", code, tmp_path / name]
        done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, text=True, check=False)
        assert bool(done.returncode) == bool(said) and said in done.stderr, done.stderr


def test_a_home_with_any_other_name_keeps_checkpoints_and_a_registry_inside(tmp_path):
    name = "50 % off; 'the' \"best\" $HOME #1 {x} & %20%s (é日)\n~@!|<>^`,:="
    home = Home(tmp_path / name)
    home.root.mkdir()
    Registry.open(home).close()
    save_tree(home.versions / "one", {"a": np.arange(3)})
    assert load_tree(home.versions / "one")[0]["a"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert home.registry.is_file()
