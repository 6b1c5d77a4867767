import os
import signal
import subprocess
import sys

import pytest

from flowrl_core.errors import InputError, ServiceError
from flowrl_core.storage.layout import Home
from tasks.orchestration.slots import count_slots, device_slot, slots

HOLD = """
import sys, time
from pathlib import Path
from flowrl_core.storage.layout import Home
from tasks.orchestration.slots import device_slot
with device_slot(Home(Path(sys.argv[1]))) as slot:
    print(slot.device, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def cpu_only(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("FLOWRL_SLOTS", raising=False)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_there_is_a_slot_per_core_and_at_most_as_many_as_asked_for(monkeypatch):
    assert 1 <= count_slots() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    assert count_slots() == 1


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_slots_is_refused(monkeypatch, text):
    monkeypatch.setenv("FLOWRL_SLOTS", text)
    with pytest.raises(InputError, match="FLOWRL_SLOTS"):
        slots()


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="JAX_PLATFORMS"):
        slots()


def test_a_holder_has_one_core_of_its_own_for_the_block(home):
    before = os.sched_getaffinity(0)
    with device_slot(home) as slot:
        assert os.sched_getaffinity(0) == {int(slot.device)}
    assert os.sched_getaffinity(0) == before


def test_a_held_slot_is_refused_and_freed_when_its_holder_is_killed(home, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(home.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip().isdigit()
        with pytest.raises(ServiceError, match="no device slot"), device_slot(home, patience=0.1):
            pass
        holder.send_signal(signal.SIGKILL)
        with device_slot(home, patience=5.0):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_two_holders_have_different_devices(home):
    with device_slot(home) as one:
        # The second holder must see all cores, as another process does.
        os.sched_setaffinity(0, range(os.cpu_count()))
        with device_slot(home) as other:
            assert one.device != other.device


def test_the_holder_of_a_gpu_sees_that_one_alone_and_takes_most_of_its_memory(home, monkeypatch):
    # No GPU is needed: JAX is not asked, and the plugin is looked for by name.
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with device_slot(home) as slot:
        assert (slot.kind, slot.device) == ("gpu", "4")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
        assert 0.75 < float(os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"]) < 1
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.4")
    with device_slot(home):
        assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.4", "what a user says stays"
