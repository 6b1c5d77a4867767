"""A process without progress ends itself."""

import signal
import subprocess
import sys
import time

CODE = """
import sys, time
from tasks.orchestration.runs.watchdog import beat, watched

with watched(0.5, last_words=lambda reason: print(reason, flush=True)):
    for _ in range(15):
        time.sleep(0.1)
        beat()
    print("went on", flush=True)
    if sys.argv[1] == "hang":
        while True:
            time.sleep(60)
time.sleep(1)
print("ended", flush=True)
"""


def run(how):
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, timeout=60)
    return done, time.monotonic() - began


def test_a_process_that_hangs_says_why_and_is_killed():
    done, seconds = run("hang")
    assert done.returncode == -signal.SIGKILL and seconds < 30
    assert done.stdout.splitlines() == ["went on", "no progress for 0.00833333 minutes"]


def test_one_that_goes_on_is_left_alone_and_after_its_work_nobody_watches():
    done, _ = run("end")
    assert done.returncode == 0 and done.stdout.splitlines() == ["went on", "ended"]
