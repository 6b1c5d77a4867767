import json
import subprocess
import sys
import time

import pytest

CODE = """
import json
from flowrl_core.stages.timing import mark, marks
mark("first_line")
sum(range(100_000))
mark("first_line")
print(json.dumps(marks()))
"""
_TICK_S = 0.02


@pytest.fixture(scope="module")
def noted():
    """What a process noted of itself, and when it was started and had ended."""
    before = time.time()
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return before, json.loads(done.stdout), time.time()


def test_a_process_knows_when_it_started_to_a_tick_of_the_kernels_clock(noted):
    before, marks, after = noted
    assert before - _TICK_S <= marks["process_started"] <= marks["first_line"] <= after


def test_a_mark_is_kept_with_the_processor_time_that_was_used_by_then(noted):
    _, marks, _ = noted
    assert list(marks["cpu_seconds"]) == ["first_line"]
    assert marks["cpu_seconds"]["first_line"] > 0
