"""The devices of this machine, divided into slots for one run each.

On GPUs a slot is a GPU or a share of one. On a CPU it is one core: two pinned processes train faster together than two
that share the cores, and a resumed run must compute with as many threads as before. Actors always take cores.

Their number follows from the resources granted to this process (`allotment`) and those of a run (`needs`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Collection
from dataclasses import dataclass
from textwrap import shorten
from typing import Literal

from flowrl_core.errors import InputError, ServiceError
from tasks.orchestration.devices.allotment import Allotment, allotment
from tasks.orchestration.devices.cuda import VISIBLE_VARIABLE, gpu_memory, visible_gpus
from tasks.orchestration.devices.needs import GPU_MEMORY, SHIPPED, Machine, Need, known_need, plan_slots
from tasks.orchestration.devices.platforms import check_flags, check_memory, platforms

__all__ = ["MOST_VARIABLE", "PER_GPU_VARIABLE", "Role", "Slot", "Survey", "slots", "survey"]

MOST_VARIABLE = "FLOWRL_SLOTS"
PER_GPU_VARIABLE = "FLOWRL_SLOTS_PER_GPU"

Role = Literal["train", "actor"]
"""What a slot is for: training takes the device that JAX prefers (GPUs, else cores); an actor takes cores."""

_DIGITS = 4
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


@dataclass(frozen=True)
class Slot:
    """A place for one run.

    Attributes:
        device: a GPU as in CUDA_VISIBLE_DEVICES, or the number of a core.
        part, parts: the index of this share among the equal shares of a GPU, and their number.
        identity: a name of the device valid in all containers and jobs of the machine: a GPU's UUID.
    """

    kind: Literal["gpu", "cpu"]
    device: str
    part: int = 0
    parts: int = 1
    identity: str = ""

    @property
    def name(self) -> str:
        """The slot's display name."""
        return f"{self.kind}-{self.device}{self._share}"

    @property
    def lock(self) -> str:
        """The name of its lock file, without the suffix."""
        return f"{self.lock_of_device}{self._share}"

    @property
    def lock_of_device(self) -> str:
        """The common prefix of the lock files of all shares of its device."""
        return f"{self.kind}-{self.identity or self.device}".replace("/", "_")

    @property
    def _share(self) -> str:
        return f".{self.part}" if self.kind == "gpu" else ""

    @property
    def memory_fraction(self) -> float:
        """The share of the GPU's memory for the slot's run."""
        return int(1000 * GPU_MEMORY / self.parts) / 1000


@dataclass(frozen=True)
class Survey:
    """The slots of this machine, and the reasons for their number.

    Attributes:
        granted: the cores and memory available to them.
        need: the resources of a run.
        is_measured: whether `need` was measured in this home, by `flowrl devices probe`.
        room: simultaneous runs that fit into memory; if it is 0, there is a slot all the same.
        remarks: messages for the user.
    """

    slots: tuple[Slot, ...]
    granted: Allotment
    need: Need
    is_measured: bool
    room: int
    remarks: tuple[str, ...]


def slots(role: Role = "train", *, known: Collection[str] = ()) -> tuple[Slot, ...]:
    """Return the slots of this machine; see `survey`."""
    return survey(role, known=known).slots


def survey(role: Role = "train", *, known: Collection[str] = ()) -> Survey:
    """Return the slots of this machine: on each GPU that JAX can use, else one per core, as many as fit into memory.

    FLOWRL_SLOTS, if set, replaces the memory's limit.

    Args:
        role: the slots' use; an actor's slots are always cores.
        known: lock names of slots that runs on this machine have used before.

    Raises:
        InputError: FLOWRL_SLOTS or FLOWRL_SLOTS_PER_GPU is not a positive number, JAX_PLATFORMS or CUDA_VISIBLE_DEVICES
            names a missing device, or XLA cannot parse XLA_FLAGS or the variables on a GPU's memory.
        ServiceError: the GPUs that earlier runs used are gone.
    """
    check_flags()
    parts, most = _number(PER_GPU_VARIABLE), _number(MOST_VARIABLE)
    gpus, said = _gpus(known) if role == "train" else ({}, "")
    if gpus:
        check_memory()
    granted = allotment()
    measured = known_need("gpu" if gpus else "cpu")
    need = measured or SHIPPED
    cut = parts or 1
    if gpus:
        if measured:
            found = plan_slots(_on(measured, gpu_memory()), Machine(len(granted.cores), granted.memory, len(gpus)))
            room, cut = found.slots, parts or max(1, found.per_gpu)
        else:
            # A run's needs beside its GPU are unknown before they are measured.
            room = plan_slots(SHIPPED, Machine(len(gpus) * cut, granted.memory)).slots
        candidates = tuple(Slot("gpu", gpu, part, cut, uuid) for part in range(cut) for gpu, uuid in gpus.items())
    else:
        room = plan_slots(need, Machine(len(granted.cores), granted.memory)).slots
        candidates = tuple(Slot("cpu", str(core)) for core in granted.cores)
    # If the user sets the shares per GPU, use them all.
    by_room = len(candidates) if gpus and parts else max(1, room)
    chosen = candidates[: most or by_room]
    remarks = (said, *_remarks(granted, need, room, len(chosen), most or parts))
    return Survey(chosen, granted, need, measured is not None, room, tuple(filter(None, remarks)))


def _remarks(granted: Allotment, need: Need, room: int, number: int, asked: int | None) -> list[str]:
    said = []
    if granted.share < 1:
        said.append(
            f"{granted.share:.2g} of a core is granted ({granted.cores_by}): a run takes correspondingly longer"
        )
    needs = f"a run takes {need.host / 1e9:.2f} GB, the first one {need.host_compiling / 1e9:.2f} GB while it compiles"
    grants = f"{granted.memory / 1e9:.2f} GB are granted ({granted.memory_by})"
    if not room:
        said.append(f"not even one run is sure to fit beside the server: {needs}, but {grants}; it may be killed")
    elif asked and number > room:
        said.append(f"{number} slots are requested, but there is room for {room}: {needs}, and {grants}")
    return said


def _on(need: Need, memory: int) -> Need:
    """Return the need on a GPU with `memory` bytes, which may differ from the measured GPU; 0: unknown."""
    return dataclasses.replace(need, device_limit=int(GPU_MEMORY * memory)) if memory else need


def _gpus(known: Collection[str]) -> tuple[dict[str, str], str]:
    wanted = platforms()
    if wanted[:1] == ("cpu",):
        return {}, ""
    can_use = any(importlib.util.find_spec(plugin) for plugin in _CUDA_PLUGINS)
    found, said = visible_gpus() if can_use else ({}, "")
    if wanted and "cpu" not in wanted and not found:
        problem = f"{wanted[0]!r} requests a GPU, but JAX finds none here"
        variable = "JAX_PLATFORMS" if os.environ.get("JAX_PLATFORMS") else "JAX_PLATFORM_NAME"
        raise InputError(variable, problem, "Unset it, or install jax[cuda12] and check `nvidia-smi -L`")
    is_all = os.environ.get(VISIBLE_VARIABLE) is None
    if can_use and not found and is_all and any(name.startswith("gpu-") for name in known):
        raise ServiceError(
            "the GPUs that earlier runs had on this machine are gone: `nvidia-smi -L` lists none. Repair the driver, "
            "or export JAX_PLATFORMS=cpu to train without them"
        )
    return found, said


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        problem = f"{shorten(text, 40)!r} is not a number of slots"
        raise InputError(variable, problem, f"Give a number from 1 to {10**_DIGITS - 1}, or unset it")
    return int(text)
