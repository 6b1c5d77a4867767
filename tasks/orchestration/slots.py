"""Device slots of this machine: which device a run gets.

A slot is a locked file in the home, taken before JAX is imported and freed by the kernel when its holder dies. On GPUs
a slot is one GPU, by CUDA_VISIBLE_DEVICES; on a CPU it is one core: two pinned processes train faster together than two
that share the cores, and a run that is resumed must compute with as many threads as before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from flowrl_core.errors import ConflictError, InputError, ServiceError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.ownership import exclusive

__all__ = ["Slot", "count_slots", "device_slot", "slots"]

logger = logging.getLogger(__name__)

_VARIABLE = "FLOWRL_SLOTS"
_GPU_MEMORY = "0.90"
"""The share of a GPU's memory that its one run takes at once. JAX's own 0.75 leaves room for others; there are none."""
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_GB_PER_RUN = 2
_POLL_S = 0.25
_PATIENCE_S = 900.0


@dataclass(frozen=True)
class Slot:
    """Room for one run: `device` is a GPU as CUDA_VISIBLE_DEVICES names it, or the number of a core."""

    kind: Literal["gpu", "cpu"]
    device: str

    @property
    def name(self) -> str:
        """The name of its lock file."""
        return f"{self.kind}-{self.device}".replace("/", "_")


def slots() -> tuple[Slot, ...]:
    """The slots of this machine: one per GPU that JAX can use, else per core while memory lasts; at most FLOWRL_SLOTS.

    Raises:
        InputError: FLOWRL_SLOTS is no positive number, or JAX_PLATFORMS asks for a device that is not there.
    """
    found = tuple(Slot("gpu", gpu) for gpu in _gpus())
    if not found:
        room = max(1, psutil.virtual_memory().total // (_GB_PER_RUN * 10**9))
        found = tuple(Slot("cpu", str(core)) for core in _cores()[:room])
    return found[: _most()]


def count_slots() -> int:
    """How many runs this machine has room for."""
    return len(slots())


@contextlib.contextmanager
def device_slot(home: Home, *, patience: float = _PATIENCE_S) -> Iterator[Slot]:
    """Hold one free slot for the block, and make its device the only one that JAX will see; waits until one is free.

    Raises:
        ServiceError: none was free for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        while (slot := _take(stack, home)) is None:
            if time.monotonic() > deadline:
                raise ServiceError(f"no device slot was free for {patience:.0f} s: is a run hanging? See {home.slots}")
            # The kernel tells nobody that a lock is free. The wait is short: the pool admits no more runs than slots.
            time.sleep(_POLL_S)
        logger.info("device slot %s", slot.name)
        with _confined(slot):
            yield slot


def _take(stack: contextlib.ExitStack, home: Home) -> Slot | None:
    for slot in slots():
        with contextlib.suppress(ConflictError):
            stack.enter_context(exclusive(home.slots / f"{slot.name}.lock", what=f"device slot {slot.name}"))
            return slot
    return None


@contextlib.contextmanager
def _confined(slot: Slot) -> Iterator[None]:
    if slot.kind == "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.device
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", _GPU_MEMORY)
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # Of this thread and those that it starts; Prefect's, which exist already, keep all cores.
    os.sched_setaffinity(0, {int(slot.device)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> list[str]:
    platforms = os.environ.get("JAX_PLATFORMS", "")
    wanted = any(name in platforms for name in ("cuda", "gpu"))
    if platforms and not wanted:
        return []
    can_use = any(importlib.util.find_spec(plugin) for plugin in _CUDA_PLUGINS)
    found = _visible_gpus() if can_use else []
    if wanted and not found:
        problem = f"{platforms!r} asks for a GPU, but JAX has none here"
        raise InputError("JAX_PLATFORMS", problem, "Unset it, or install jax[cuda12] and check `nvidia-smi -L`")
    return found


def _visible_gpus() -> list[str]:
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        logger.warning("nvidia-smi does not answer (%s); training on the CPU", exc)
        return []
    return [str(number) for number, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU"))]


def _most() -> int | None:
    text = os.environ.get(_VARIABLE)
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(_VARIABLE, f"{text!r} is no number of slots", "Give a number from 1 on, or unset it")
    return int(text)
