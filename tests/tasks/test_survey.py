"""Which devices a machine has, whatever is said of them."""

import os
import shutil
from pathlib import Path

import pytest

from flowrl_core.errors import InputError
from flowrl_core.storage.layout import Home
from tasks.orchestration.devices.needs import Need, record_need
from tasks.orchestration.devices.slots import device_slots
from tasks.orchestration.devices.survey import slots, survey

pytestmark = pytest.mark.usefixtures("machine")


@pytest.mark.parametrize("named", ["7", "7,0", "GPU-cc33", "GPU-", "MIG-no"])
def test_a_gpu_that_is_named_and_not_there_is_refused(listing, monkeypatch, named):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(InputError, match=f"CUDA_VISIBLE_DEVICES: it names {named.split(',')[0]}"), device_slots():
        pass


MIG = """GPU 0: NVIDIA A100 (UUID: GPU-aa11)
  MIG 3g.20gb     Device  0: (UUID: MIG-c1)
  MIG 3g.20gb     Device  1: (UUID: MIG-c2)
GPU 1: NVIDIA A100 (UUID: GPU-ab22)
"""


@pytest.mark.parametrize(
    ("named", "devices"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("none", []),
        (",0", []),
        ("0", ["0"]),
        ("1,0", ["1", "0"]),
        (" 1 , 0", ["1", "0"]),
        ("01", ["1"]),
        ("1st,0th", ["1", "0"]),
        ("0,-1,1", ["0"]),
        ("0,,1", ["0"]),
        ("0,7,1", ["0"]),
        ("0,GPU-ab", ["0"]),
        ("0,0", []),
        ("0,1,0", []),
        ("GPU-aa11,GPU-aa", []),
        ("GPU-ab", ["1"]),
        ("GPU-ab22, GPU-aa", ["1", "0"]),
        ("GPU-aa,0", ["0"]),
        ("MIG-c2", ["MIG-c2"]),
        ("MIG-c2,MIG-c1", ["MIG-c2", "MIG-c1"]),
        ("MIG-GPU-aa11/1/0", ["MIG-GPU-aa11/1/0"]),
    ],
)
def test_a_list_of_gpus_means_what_cuda_means_by_it(listing, monkeypatch, named, devices):
    listing.write_text(MIG)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    found = [slot.device for slot in slots() if slot.kind == "gpu"]
    assert found == devices
    assert found or {slot.kind for slot in slots()} == {"cpu"}, "what CUDA does not show, JAX does not use"


def test_a_list_that_ends_before_a_gpu_that_is_not_here_is_told(listing, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7,1")
    assert "names 7, and this machine has 0, 1" in survey().remarks[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,0")
    assert "names 0 twice" in survey().remarks[0]


def test_an_abbreviation_of_two_gpus_names_none(listing, monkeypatch):
    listing.write_text(MIG)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    with pytest.raises(InputError, match="names GPU-a"):
        slots()


def test_numbers_in_an_order_that_nobody_can_tell_are_refused(listing, monkeypatch):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [slot.device for slot in slots()] == ["0"], "of equal GPUs the order is that of the bus"
    with device_slots():
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    listing.write_text(listing.read_text().replace("H200", "T4", 1))
    with pytest.raises(InputError, match="CUDA_DEVICE_ORDER"):
        slots()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert [slot.device for slot in slots()] == ["1"]


def test_a_measured_run_says_how_a_gpu_is_cut(listing, monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "home"))
    (tmp_path / "bin" / "nvidia-smi").write_text(
        f'#!/bin/sh\ncase "$1" in -L) cat "{listing}";; *) echo 40000; echo 20000;; esac\n'
    )
    gb = 10**9
    record_need(Home(tmp_path / "home"), Need("gpu", gb // 2, 0, 5 * gb, 36 * gb))
    found = survey()
    # 0.9 of the smaller GPU's 20,971,520,000 bytes: three times 5.5 GB.
    assert found.is_measured and {slot.parts for slot in found.slots} == {min(3, len(os.sched_getaffinity(0)))}
    monkeypatch.setenv("FLOWRL_SLOTS_PER_GPU", "1")
    assert [slot.name for slot in slots()] == ["gpu-0.0", "gpu-1.0"]


def test_a_gpu_that_jax_is_told_to_use_and_cannot_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="JAX_PLATFORMS"):
        slots()


@pytest.mark.parametrize("text", ["nonsense", "CPU", "cpu,", ",cpu", " cpu", "cpu, cuda", "gpu", "tpu", ","])
def test_a_platform_that_jax_would_not_take_is_refused(monkeypatch, text):
    monkeypatch.setenv("JAX_PLATFORMS", text)
    with pytest.raises(InputError, match="JAX_PLATFORMS: "):
        slots()


@pytest.mark.parametrize(
    ("platforms", "name", "kind"),
    [
        ("", "", "gpu"),
        ("cuda", "", "gpu"),
        ("cuda,cpu", "", "gpu"),
        ("cpu,cuda", "", "cpu"),
        ("", "CPU", "cpu"),
        ("cuda,cpu", "cpu", "cpu"),
        ("", "cuda", "gpu"),
    ],
)
def test_the_platform_that_jax_prefers_has_the_slots(listing, monkeypatch, platforms, name, kind):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("JAX_PLATFORM_NAME", name)
    assert {slot.kind for slot in slots()} == {kind}


def test_a_platform_of_which_there_is_no_device_gives_way_to_the_next(listing, monkeypatch):
    listing.write_text("")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert {slot.kind for slot in slots()} == {"cpu"}


def test_a_deprecated_name_that_contradicts_the_list_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORM_NAME", "cuda")
    with pytest.raises(InputError, match="JAX_PLATFORM_NAME"):
        slots()


def test_without_nvidia_smi_the_gpus_that_are_named_are_believed(listing, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("PATH", str(Path(shutil.which("sh")).parent / "nowhere"))
    assert [slot.device for slot in slots()] == ["4", "7"]
