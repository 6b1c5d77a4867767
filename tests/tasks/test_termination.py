import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm

from tasks.orchestration.runs.termination import told_anywhere, until_told


def test_undisturbed_work_returns_its_result_and_its_error():
    assert until_told(lambda should_stop: 7) == 7
    with pytest.raises(ValueError, match="wrong"):
        until_told(lambda should_stop: int("wrong"))


def test_a_sigterm_lets_the_work_end_at_a_safe_point_and_is_raised_then():
    done = []

    def work(should_stop):
        while not should_stop():
            time.sleep(0.01)
        time.sleep(0.1)
        done.append("saved")

    def send():
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)  # somebody who does not want to wait

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        threading.Thread(target=send).start()
        with pytest.raises(TerminationSignal), capture_sigterm():
            until_told(work)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["saved"]


# Work that compiles: it returns in a minute, and nothing in its process interrupts it before.
COMPILING = """
import logging, signal, sys, threading, time
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm
from tasks.orchestration.runs.termination import until_told

logging.basicConfig(stream=sys.stdout, format="%(message)s")
saved = threading.Event()

def work(should_stop):
    print("begun", flush=True)
    if sys.argv[1] == "unsaved":
        while not should_stop():
            time.sleep(0.01)
        time.sleep(3.5)
        saved.set()
        logging.warning("saved")
    time.sleep(60)

signal.signal(signal.SIGTERM, lambda *_: None)
try:
    with capture_sigterm():
        until_told(work, has_unsaved=lambda: sys.argv[1] == "unsaved" and not saved.is_set())
except TerminationSignal:
    logging.warning("stopped")
    if sys.argv[2] == "handled":
        sys.exit(0)
    raise
"""


@pytest.mark.parametrize(("kind", "end", "code"), [("compiles", "handled", 0), ("unsaved", "raised", 1)])
def test_work_that_does_not_listen_is_left_behind_unless_it_has_something_to_save(kind, end, code):
    command = [sys.executable, "-c", COMPILING, kind, end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.terminate()
            said, _ = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == code
    assert said.split() == (["saved", "stopped"] if kind == "unsaved" else ["stopped"])


@pytest.mark.parametrize("place", ["another task", "a callback", "the block", "none of them"])
def test_a_sigterm_ends_a_block_of_an_event_loop_wherever_it_is_raised(place):
    def tell():
        os.kill(os.getpid(), signal.SIGTERM)

    async def tell_here():
        tell()

    async def work():
        async with told_anywhere():
            if place == "another task":
                lost.append(asyncio.create_task(tell_here()))
            elif place == "a callback":
                asyncio.get_running_loop().call_soon(tell)
            elif place == "the block":
                tell()
            else:
                threading.Timer(0.2, tell).start()
            await asyncio.sleep(60)

    lost = []
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(TerminationSignal), capture_sigterm():
            asyncio.run(work())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [type(task.exception()) for task in lost] == [TerminationSignal] * len(lost)
    assert signal.set_wakeup_fd(-1) == -1
