"""A process that is asked for something ends with the one that asks."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.orchestration.children import run_child

ASKING = """
import signal, sys, threading, time
from pathlib import Path
from tasks.orchestration.children import run_child

child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"

def ask():
    run_child([sys.executable, "-c", child, sys.argv[1]])

threading.Thread(target=ask, daemon=True).start()
while not (Path(sys.argv[1]).exists() and Path(sys.argv[1]).read_text()):
    time.sleep(0.01)
"""


def test_a_child_of_a_thread_ends_when_its_process_does(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ASKING, str(tmp_path / "child")], timeout=60, check=True)
    number = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 20
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


def test_what_it_says_comes_back_and_one_that_takes_too_long_is_killed() -> None:
    said = run_child([sys.executable, "-c", "print(7)"], stdout=subprocess.PIPE)
    assert (said.returncode, said.stdout) == (0, "7\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run_child([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
