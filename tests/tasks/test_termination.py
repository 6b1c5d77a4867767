import os
import signal
import threading
import time

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm

from tasks.orchestration.termination import until_told


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
