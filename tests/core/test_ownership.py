import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowrl_core.errors import ConflictError
from flowrl_core.storage.layout import RunDirectory
from flowrl_core.storage.ownership import own_run

HOLDER = """
import sys, time
from pathlib import Path
from flowrl_core.storage.layout import RunDirectory
from flowrl_core.storage.ownership import own_run
with own_run(RunDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def _hold(directory: RunDirectory) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", HOLDER, str(directory.path)]
    holder = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_run_held_by_a_living_process_is_refused_with_its_pid(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs" / "default" / "eat_cow-1")
    holder = _hold(directory)
    try:
        with pytest.raises(ConflictError, match=f"process {holder.pid} "), own_run(directory):
            pass
    finally:
        holder.communicate("")
    with own_run(directory):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "eat_cow-1")
    holder = _hold(directory)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert directory.owner_lock.exists()
    with own_run(directory):
        assert directory.owner_lock.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_owned_before_its_directory_exists_and_after_it_is_gone(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "eat_cow-1")
    with own_run(directory):
        assert not directory.path.exists()
        directory.path.mkdir()
        directory.path.rmdir()
        with pytest.raises(ConflictError), own_run(directory):
            pass
