"""`flowrl devices`: who holds which slot, and how many runs there is room for."""

from __future__ import annotations

import getpass
import json
import os

import pytest

from flowrl_core.errors import InputError
from tasks.orchestration.devices.needs import Machine, Need, plan_slots
from tasks.orchestration.devices.platforms import check_flags
from tasks.orchestration.devices.slots import device_slots
from tasks.orchestration.devices.survey import survey

GB = 10**9
# The shapes of the campaigns in tests/flows: what is compiled here need not be compiled there.
TINY = {
    "num-envs": 16,
    "rollout-length": 16,
    "minibatch-size": 64,
    "width": 16,
    "world-pool": 32,
    "snapshot-capacity": 32,
}


def test_a_slot_is_shown_with_who_holds_it(flowrl_here, flowrl, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with device_slots() as (slot,):
        done = flowrl("devices", "--json")
        found = {one["name"]: one["holder"] for one in json.loads(done.stdout)["slots"]}
        assert found[slot.name]["pid"] == os.getpid()
        assert found[slot.name]["user"] == getpass.getuser()
        shown = flowrl_here("devices").stdout
        assert slot.name in shown and f"process {os.getpid()} of " in shown
    assert "free" in flowrl_here("devices").stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JAX_PLATFORMS", "nonsense"),
        ("XLA_FLAGS", "--none=1"),
    ],
)
def test_a_device_that_is_not_there_is_told(home, flowrl_here, refused, monkeypatch, variable, value):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv(variable, value)
    refused(flowrl_here("devices"), variable)
    refused(flowrl_here("devices", "probe"), variable)
    refused(flowrl_here("campaign", "--target", "make_b", "--env", "corridor"), variable)
    refused(flowrl_here("up"), variable)
    examined = flowrl_here("doctor")
    assert examined.returncode == 1 and variable in examined.stdout
    assert "Traceback" not in examined.stdout + examined.stderr
    assert not home.exists()


def test_flags_of_blanks_are_refused_as_xla_would(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", " ")
    with pytest.raises(InputError, match="XLA_FLAGS"):
        check_flags()


@pytest.mark.parametrize(
    "said",
    [
        {"XLA_PYTHON_CLIENT_MEM_FRACTION": "half"},
        {"XLA_PYTHON_CLIENT_ALLOCATOR": "mine"},
        {"XLA_CLIENT_MEM_FRACTION": "0.5", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"},
    ],
)
def test_what_xla_cannot_read_of_a_gpus_memory_is_refused_where_there_is_one(said, monkeypatch):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert survey().slots[0].kind == "cpu"
    monkeypatch.setattr("tasks.orchestration.devices.survey._gpus", lambda known: ({"0": "GPU-0"}, ""))
    with pytest.raises(InputError, match="cannot be read") as caught:
        survey()
    assert caught.value.field == ", ".join(sorted(said))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--env", "coridor"), ("corridor",)), (("--training.width", "0"), ("training.width",))],
)
def test_what_cannot_be_probed_is_refused(home, flowrl_here, refused, arguments, said):
    refused(flowrl_here("devices", "probe", *arguments), *said)
    assert not home.exists()


def test_a_probe_measures_a_run_and_proposes_slots(server, flowrl_here, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("FLOWRL_HOME", str(server.home.root))
    sizes = [text for name, value in TINY.items() for text in (f"--training.{name}", str(value))]
    done = flowrl_here("devices", "probe", "--env", "corridor", "--json", *sizes)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Python, JAX and Prefect alone take more than the first; all the rest of this tiny run much less than the second.
    assert 0.1 * GB < found["host_bytes"] < 1.0 * GB
    assert found["host_bytes_compiling"] == 0 or found["host_bytes_compiling"] > found["host_bytes"]
    assert found["device_bytes"] == 0
    assert 1 <= found["slots"] <= len(os.sched_getaffinity(0))
    kept = json.loads(flowrl_here("devices", "--json").stdout)
    assert kept["is_measured"] and kept["run_bytes"] == found["host_bytes"], "the slots are counted with it from now on"


def cpu(host, compiling=0):
    return Need("cpu", int(host * GB), int(compiling * GB), 0, 0)


def gpu(device, whole, host=1.0):
    return Need("gpu", int(host * GB), 0, int(device * GB), int(0.9 * whole * GB))


@pytest.mark.parametrize(
    ("need", "machine", "slots", "per_gpu"),
    [
        (cpu(1), Machine(cores=4, memory=24 * GB), 4, 0),
        (cpu(1), Machine(cores=64, memory=24 * GB), 19, 0),
        # One of them compiles: the others have that much less.
        (cpu(1, compiling=6), Machine(cores=64, memory=24 * GB), 14, 0),
        # A server, its workers and a campaign take their part.
        (cpu(1), Machine(cores=64, memory=2 * GB), 1, 0),
        (cpu(1), Machine(cores=64, memory=int(1.8 * GB)), 0, 0),
        (cpu(30), Machine(cores=4, memory=24 * GB), 0, 0),
        (gpu(4, whole=40), Machine(cores=64, memory=256 * GB, gpus=2), 16, 8),
        # Half a gigabyte for CUDA in each process, out of what the allocators leave.
        (gpu(0.1, whole=40), Machine(cores=64, memory=256 * GB, gpus=2), 16, 8),
        # Each run needs a core for its own part.
        (gpu(4, whole=40), Machine(cores=6, memory=256 * GB, gpus=2), 6, 6),
        (gpu(38, whole=40), Machine(cores=64, memory=256 * GB, gpus=2), 0, 0),
    ],
)
def test_there_are_as_many_slots_as_memory_and_cores_allow(need, machine, slots, per_gpu):
    found = plan_slots(need, machine)
    assert (found.slots, found.per_gpu) == (slots, per_gpu)
