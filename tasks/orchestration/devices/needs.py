"""The resources of one run, measured or as shipped, and how many runs fit on a machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from flowrl_core.errors import InputError
from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.layout import Home

__all__ = ["GPU_MEMORY", "SHIPPED", "Machine", "Need", "SlotPlan", "known_need", "plan_slots", "record_need"]

GPU_MEMORY = 0.90
"""The share of a GPU's memory that its runs may use at once. JAX's 0.75 reserves room for other programs."""

_HEADROOM = 1.1
"""Factor on the measured memory: real plans are longer, and allocators fragment."""
_MOST_OF_HOST = 0.9
_SERVICES = 600 * 10**6
"""Memory of a local server (0.24 GB measured), the workers (0.11 GB) and a campaign's process."""
_CUDA_BYTES = 500 * 10**6
"""GPU memory that CUDA takes for each process, outside the measured allocator."""


@dataclass(frozen=True)
class Need:
    """The resources of one run, in bytes.

    Attributes:
        platform: cpu or gpu.
        host: the machine's memory.
        host_compiling: the same while the first run of these shapes compiles; 0 if that was done before.
        device, device_limit: GPU memory, and the limit of its allocator; 0 on a CPU.
    """

    platform: str
    host: int
    host_compiling: int
    device: int
    device_limit: int


SHIPPED = Need("cpu", 770 * 10**6, 1_520 * 10**6, 0, 0)
"""Measured with the default settings in Craftax-Classic, on one core (docs/operations.md)."""


@dataclass(frozen=True)
class Machine:
    """The resources available for runs: cores, bytes of memory, GPUs."""

    cores: int
    memory: int
    gpus: int = 0


@dataclass(frozen=True)
class SlotPlan:
    """The number of simultaneous runs, on the whole machine and on each GPU (0: no GPU)."""

    slots: int
    per_gpu: int


def plan_slots(need: Need, machine: Machine) -> SlotPlan:
    """Return the slots that fit on the machine: by memory, and one core each; none if one run does not fit."""
    room = int(_MOST_OF_HOST * machine.memory) - _SERVICES
    # Only one run compiles at a time.
    room -= max(0, need.host_compiling - need.host)
    by_host = min(machine.cores, max(0, int(room // (_HEADROOM * need.host))))
    if need.platform == "cpu":
        return SlotPlan(by_host, 0)
    whole = need.device_limit / GPU_MEMORY
    by_allocator = int(need.device_limit // (_HEADROOM * max(1, need.device)))
    by_context = max(1, int((whole - need.device_limit) // _CUDA_BYTES))
    per_gpu = min(by_allocator, by_context, by_host)
    return SlotPlan(min(by_host, per_gpu * machine.gpus), per_gpu)


def known_need(platform: str) -> Need | None:
    """Return the last result of `flowrl devices probe` in this home for this platform; None if there is none."""
    try:
        return Need(**json.loads(_record(Home.from_environment(), platform).read_text(encoding="utf-8")))
    except (InputError, OSError, ValueError, TypeError):
        return None


def record_need(home: Home, need: Need) -> Path:
    """Save a measurement for this home's slots; return its path."""
    path = _record(home, need.platform)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nothing was left to compile in this measurement, but other shapes will have to be compiled.
    compiling = need.host_compiling or need.host + SHIPPED.host_compiling - SHIPPED.host
    write_json(path, asdict(need) | {"host_compiling": compiling})
    return path


def _record(home: Home, platform: str) -> Path:
    return home.cache / f"need-{platform}.json"
