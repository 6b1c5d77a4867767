"""Machines with and without GPUs, as the slots see them."""

import os

import pytest

NVIDIA_SMI = """#!/bin/sh
cat "{listing}"
"""
TWO_GPUS = "GPU 0: NVIDIA H200 (UUID: GPU-aa11)\nGPU 1: NVIDIA H200 (UUID: GPU-bb22)\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without GPUs and slots that nobody has used yet; the directory of its slots."""
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "home"))
    for name in (
        "FLOWRL_SLOTS",
        "FLOWRL_SLOTS_PER_GPU",
        "CUDA_VISIBLE_DEVICES",
        "JAX_PLATFORM_NAME",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("FLOWRL_SLOTS_DIR", str(tmp_path / "slots"))
    return tmp_path / "slots"


@pytest.fixture
def listing(machine, monkeypatch, tmp_path):
    """What `nvidia-smi -L` prints: two GPUs at first. JAX is not asked; its plugin for CUDA is a stand-in."""
    plugin, programs, listing = tmp_path / "plugins", tmp_path / "bin", tmp_path / "listing"
    (plugin / "jax_cuda12_plugin").mkdir(parents=True)
    (plugin / "jax_cuda12_plugin" / "__init__.py").touch()
    programs.mkdir()
    (programs / "nvidia-smi").write_text(NVIDIA_SMI.format(listing=listing))
    (programs / "nvidia-smi").chmod(0o755)
    listing.write_text(TWO_GPUS)
    monkeypatch.syspath_prepend(plugin)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.delenv("JAX_PLATFORMS")
    return listing
