"""Whatever packages `flows`, `tasks` and `tests` a person has, FlowRL's processes use FlowRL's; others keep theirs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import flows
import tasks
from flowrl_cli.checks.installed import examine_installation
from flowrl_cli.server.environment import child_environment
from flowrl_core.installation import ROOT, command
from flowrl_core.storage.layout import Home
from tasks.orchestration.devices import slots

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
OURS = {"flows": flows.__file__, "tasks": tasks.__file__, "slots": slots.__file__}
LOOK = """
import json, sys
import flows, tasks, tasks.orchestration.devices.slots as slots
places = {"flows": flows.__file__, "tasks": tasks.__file__, "slots": slots.__file__}
print(json.dumps([places, sys.argv[1:]]))
"""


def modules(directory: Path) -> None:
    for name in ("flows", "tasks", "tests", "flowrl"):
        (directory / f"{name}.py").write_text(f"raise RuntimeError('another {name}')")


def packages(directory: Path) -> None:
    for name in ("flows", "tasks/orchestration", "tests"):
        (directory / name).mkdir(parents=True)
        for package in {name, name.partition("/")[0]}:
            (directory / package / "__init__.py").write_text("")
    (directory / "tasks" / "orchestration" / "slots.py").write_text("raise RuntimeError('another one')")


def namespaces(directory: Path) -> None:
    for name in ("flows", "tasks/orchestration", "tests"):
        (directory / name).mkdir(parents=True)


def imported_at_startup(directory: Path) -> None:
    """As a .pth file among the installed packages may."""
    packages(directory)
    code = f"import sys; sys.path.insert(0, {str(directory)!r}); import flows, tasks, tasks.orchestration"
    (directory / "sitecustomize.py").write_text(code)


THEIRS = [modules, packages, namespaces, imported_at_startup]


@pytest.fixture(params=THEIRS, ids=lambda make: make.__name__)
def theirs(request, home, tmp_path, monkeypatch) -> Path:
    """A working directory, also on PYTHONPATH, with packages of these names."""
    directory = tmp_path / "a person's own"
    directory.mkdir()
    request.param(directory)
    (directory / "look.py").write_text(LOOK)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("PYTHONPATH", f"{directory}{os.pathsep}.")
    return directory


def said_by(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("start", [[FLOWRL], [sys.executable, "-m", "flowrl_cli"]], ids=["flowrl", "module"])
def test_the_command_uses_ours(theirs, start):
    """`flowrl devices` imports tasks.orchestration."""
    assert "Lock files:" in said_by(*start, "devices")


def test_what_the_command_starts_uses_ours(theirs):
    """Server, workers, runs and measuring processes are all started so."""
    assert json.loads(said_by(*command("look", "--an", "argument"))) == [OURS, ["--an", "argument"]]


def test_a_pull_step_makes_the_names_ours(theirs):
    """In Prefect's own process, which may have imported others before."""
    code = "from flowrl_core.installation import enter; print(enter()); import runpy; runpy.run_path('look.py')"
    first, second = said_by(sys.executable, "-c", code).splitlines()
    assert first == str({"directory": str(ROOT)})
    assert json.loads(second) == [OURS, []]


def test_who_only_uses_the_core_keeps_his_own(home, tmp_path, monkeypatch):
    packages(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import flowrl_core.installation, flowrl_core.storage.registry, tasks; print(tasks.__file__)"
    assert said_by(sys.executable, "-c", code) == f"{tmp_path}/tasks/__init__.py\n"


def test_the_command_prefers_installed_packages_to_files_of_the_working_directory(home, tmp_path):
    """Also as a module, whose working directory comes first otherwise."""
    (tmp_path / "here" / "cyclopts.py").write_text("raise RuntimeError('another one')")
    assert said_by(sys.executable, "-m", "flowrl_cli", "--version") == said_by(FLOWRL, "--version")


@pytest.mark.parametrize("start", [[FLOWRL, "devices"], command("look")], ids=["the command", "what it starts"])
def test_what_is_installed_comes_before_what_is_on_pythonpath(home, tmp_path, monkeypatch, start):
    """Files of any project, the standard library's names among them."""
    for name in ("random", "logging", "queue", "secrets", "prefect", "jax", "numpy", "yaml", "anyio", "rich"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('another {name}')")
    (tmp_path / "look.py").write_text(
        "import logging, random, queue, secrets, prefect, jax, yaml, anyio; print('Lock files:')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "Lock files:" in said_by(*start)


def test_what_is_on_pythonpath_alone_is_found(home, tmp_path, monkeypatch):
    """As where a cluster's modules bring a package."""
    (tmp_path / "look.py").write_text("import brought, json; print(json.dumps(brought.__file__))")
    (tmp_path / "brought.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert json.loads(said_by(*command("look"))) == f"{tmp_path}/brought.py"


@pytest.mark.parametrize("name", ["numpy", "random"])
def test_jax_starts_whatever_is_on_pythonpath(home, tmp_path, monkeypatch, name):
    """Asked in a process that is not of the usual kind."""
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('another one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "from flowrl_core.installation import anchor, prefer_installed; anchor(); prefer_installed(); "
    code += "from tasks.orchestration.devices.platforms import ask_jax; print(ask_jax().number)"
    assert said_by(sys.executable, "-P", "-c", code) == "1\n"


def test_a_file_that_is_taken_for_a_package_all_the_same_is_named(home, tmp_path, monkeypatch):
    """As where a .pth file puts its directory before what is installed."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(tmp_path / 'first')!r})")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "rich.py").write_text("")
    done = subprocess.run([FLOWRL, "devices"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and f"(rich is {tmp_path}/first/rich.py). `flowrl doctor` says" in done.stderr
    (tmp_path / "prefect.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    (found,) = [one for one in examine_installation() if one.state == "wrong"]
    assert found.what == "prefect" and found.found == f"{tmp_path}/prefect.py is imported instead"


def test_relative_places_of_packages_mean_the_same_in_what_is_started(home, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"vendor{os.pathsep}/there")
    started = child_environment(Home(home), home, "mark", "http://127.0.0.1:1/api", {})
    assert started["PYTHONPATH"] == f"{Path.cwd()}/vendor{os.pathsep}/there"


def test_a_flow_that_prefect_itself_loads_uses_ours(home, tmp_path, monkeypatch):
    imported_at_startup(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(ROOT)
    code = (
        "from prefect.flows import load_flow_from_entrypoint as load\n"
        "print(load('flows/housekeeping.py:housekeeping', use_placeholder_flow=False).name)\n"
        "import tasks; print(tasks.__file__)"
    )
    assert said_by(sys.executable, "-c", code).split() == ["housekeeping", OURS["tasks"]]
