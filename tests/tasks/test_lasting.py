"""What a process that lasts for weeks looks after."""

import fcntl
import os
import subprocess
import sys
import time

import pytest

from tasks.orchestration.server.lasting import bound

FLOOD = """
import sys, time
from tasks.orchestration.server import lasting
lasting.MOST_PRINTED, lasting._LOOK_S = 10_000, 0.01
lasting.last()
for number in range(int(sys.argv[1])):
    print("line", number, flush=True)
    time.sleep(0.0002)
time.sleep(0.2)
"""


def test_a_file_that_grew_too_long_keeps_its_last_lines_while_others_append(tmp_path):
    path = tmp_path / "log"
    with path.open("a+b", 0) as one, path.open("ab", 0) as other:
        for number in range(100):
            (one if number % 2 else other).write(b"line %d\n" % number)
        before = path.stat().st_size
        bound(one.fileno(), most=before)
        assert path.stat().st_size == before, "not longer than it may be"
        bound(one.fileno(), most=before - 1)
        other.write(b"the next\n")
        lines = path.read_text().splitlines()
    assert "dropped" in lines[0] and lines[1].startswith("line ") and lines[-2:] == ["line 99", "the next"]
    assert path.stat().st_size < before / 2


@pytest.mark.parametrize("mode", ["ab", "pipe"])
def test_what_cannot_be_cut_is_left_alone(tmp_path, mode):
    if mode == "pipe":
        ends = os.pipe()
        bound(ends[1], most=0)
        return
    with (tmp_path / "log").open(mode) as file:
        file.write(b"x" * 10_000)
        file.flush()
        bound(file.fileno(), most=10)
        assert file.tell() == 10_000


def is_locked(directory):
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_process_bounds_what_it_prints_and_keeps_its_temporary_directory(tmp_path):
    directory = tmp_path / "temporary"
    directory.mkdir(mode=0o700)
    with (tmp_path / "log").open("a+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", FLOOD, "6000"],
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(directory)},
        )
        while not is_locked(directory):  # so that tools which remove old files pass by
            assert process.poll() is None
            time.sleep(0.01)
        directory.rmdir()
        assert process.wait(timeout=60) == 0
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "log").stat().st_size < 30_000
    assert (tmp_path / "log").read_text().splitlines()[-1] == "line 5999"
