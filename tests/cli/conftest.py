"""The command as tests call it: as a process of its own, or in this one where many calls are made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Its first import sets up logging anew, which closes what absl's handler writes to: in a test that comes later, that
# would be pytest's own file.
import prefect.main  # noqa: F401
import pytest

from flowrl_cli.app import run

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path, monkeypatch, slots_directory) -> Path:
    """A home that does not exist yet, in an empty working directory; no server is configured."""
    for name in os.environ:
        if name.startswith(("FLOWRL_", "PREFECT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FLOWRL_SLOTS_DIR", str(slots_directory))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "here" / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "elsewhere" / "prefect"))
    return tmp_path / "here" / "home"


@pytest.fixture
def flowrl(home) -> Command:
    """Runs the real command in a process of its own."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables}
        return subprocess.run(
            [FLOWRL, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=False
        )

    return call


@pytest.fixture
def flowrl_here(home, capsys) -> Command:
    """Runs the command in this process: what it prints and returns is the same."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = run(arguments)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


@pytest.fixture
def refused() -> Callable[..., None]:
    """Asserts that a call was refused as wrong input: exit code 2, no output, one line of error that says all this."""

    def check(done: subprocess.CompletedProcess[str], *said: str) -> None:
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.startswith("flowrl: ")
        assert len(done.stderr.splitlines()) == 1, done.stderr
        for text in said:
            assert text in done.stderr

    return check
