"""A command works alike in whichever interpreter it was started: its encoding, its warnings, its streams."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowrl_cli.server.environment import child_environment
from flowrl_core.storage.layout import Home

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
# Variables, and options of the interpreter that mean the same.
UNUSUAL = {
    "ASCII": ({"PYTHONIOENCODING": "ascii"}, ()),
    "no UTF-8": ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ()),
    "warnings are errors": ({"PYTHONWARNINGS": "error"}, ()),
    "no assertions, no docstrings": ({"PYTHONOPTIMIZE": "2"}, ()),
    "goes on by hand": ({"PYTHONINSPECT": "1"}, ()),
    "by options": ({}, ("-OO", "-W", "error", "-X", "dev")),
}


def say(command, variables, options=()):
    """The exit code, and all that was printed."""
    done = subprocess.run(
        [sys.executable, *options, FLOWRL, *command.split()],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def words(text):
    """Without what only frames it."""
    return re.findall(r"\w+", text)


@pytest.fixture(scope="module")
def usual_help():
    return words(say("campaign --help", {})[1])


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_command_says_the_same_and_means_the_same_files(name, home, tmp_path, monkeypatch, usual_help):
    variables, options = UNUSUAL[name]
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "für mich"))
    code, said = say("status", variables, options)
    assert code == 0 and f"in {tmp_path}/für mich. " in said.replace("\\xfc", "ü"), said
    assert words(say("campaign --help", variables, options)[1]) == usual_help


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_silence(closed, home):
    done = subprocess.run(["bash", "-c", f"{FLOWRL} plan nosuch {closed}"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "" and ("nosuch" in done.stderr) is ("2>&-" not in closed)


def test_what_is_started_has_a_usual_interpreter_and_no_working_directory_of_others(tmp_path, monkeypatch):
    for variables, _ in UNUSUAL.values():
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    for name in ("PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME", "PYTHONMALLOCSTATS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/theirs", ""]))
    home = Home(tmp_path)
    found = child_environment(home, home.prefect, "mark", "http://127.0.0.1:4200/api", {})
    python = {name: value for name, value in found.items() if name.startswith("PYTHON")}
    others = {"PYTHONPATH": "/theirs", "PYTHONUTF8": "1", "PYTHONCOERCECLOCALE": "0"}
    assert {name: value for name, value in python.items() if name != "PYTHONUNBUFFERED"} == others
