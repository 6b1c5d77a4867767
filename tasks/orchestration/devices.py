"""The devices of this machine, cut into slots: room for one run each.

On GPUs a slot is a GPU or a share of one; on a CPU it is one core: two pinned processes train faster together than two
that share the cores, and a run that is resumed must compute with as many threads as before.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import psutil

from flowrl_core.errors import InputError, ServiceError
from tasks.orchestration.platforms import check_flags, platforms

__all__ = ["GPU_MEMORY", "MOST_VARIABLE", "PER_GPU_VARIABLE", "Slot", "slots"]

logger = logging.getLogger(__name__)

MOST_VARIABLE = "FLOWRL_SLOTS"
PER_GPU_VARIABLE = "FLOWRL_SLOTS_PER_GPU"

GPU_MEMORY = 0.90
"""The share of a GPU's memory that its runs take at once. JAX's own 0.75 leaves room for others; there are none."""
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_GB_PER_RUN = 2
_LISTED = re.compile(r"^GPU (?P<index>\d+): .*\(UUID: (?P<uuid>[^)]+)\)$")
_LISTED_PART = re.compile(r"^\s+MIG .*\(UUID: (?P<uuid>[^)]+)\)$")


@dataclass(frozen=True)
class Slot:
    """Room for one run.

    Attributes:
        device: a GPU as CUDA_VISIBLE_DEVICES names it, or the number of a core.
        part, parts: which of how many equal shares of a GPU.
    """

    kind: Literal["gpu", "cpu"]
    device: str
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> str:
        """The name of its lock file."""
        part = f".{self.part}" if self.kind == "gpu" else ""
        return f"{self.kind}-{self.device}{part}".replace("/", "_")

    @property
    def memory_fraction(self) -> float:
        """The share of the GPU's memory that its run takes."""
        return int(1000 * GPU_MEMORY / self.parts) / 1000


def slots(*, known: Collection[str] = ()) -> tuple[Slot, ...]:
    """The slots of this machine: on each GPU that JAX can use, else per core while memory lasts; at most FLOWRL_SLOTS.

    Args:
        known: names of the slots that runs of this machine have had before.

    Raises:
        InputError: FLOWRL_SLOTS or FLOWRL_SLOTS_PER_GPU is no positive number, JAX_PLATFORMS or CUDA_VISIBLE_DEVICES
            asks for a device that is not there, or XLA cannot read XLA_FLAGS.
        ServiceError: there were GPUs, and there is none any more.
    """
    check_flags()
    parts = _number(PER_GPU_VARIABLE) or 1
    found = tuple(Slot("gpu", gpu, part, parts) for part in range(parts) for gpu in _gpus(known))
    if not found:
        room = max(1, psutil.virtual_memory().total // (_GB_PER_RUN * 10**9))
        found = tuple(Slot("cpu", str(core)) for core in _cores()[:room])
    return found[: _number(MOST_VARIABLE)]


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus(known: Collection[str]) -> list[str]:
    wanted = platforms()
    if wanted[:1] == ("cpu",):
        return []
    can_use = any(importlib.util.find_spec(plugin) for plugin in _CUDA_PLUGINS)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _visible(named) if can_use else []
    if wanted and "cpu" not in wanted and not found:
        problem = f"{wanted[0]!r} asks for a GPU, but JAX has none here"
        variable = "JAX_PLATFORMS" if os.environ.get("JAX_PLATFORMS") else "JAX_PLATFORM_NAME"
        raise InputError(variable, problem, "Unset it, or install jax[cuda12] and check `nvidia-smi -L`")
    if can_use and not found and named is None and any(name.startswith("gpu-") for name in known):
        raise ServiceError(
            "the GPUs that earlier runs had on this machine are gone: `nvidia-smi -L` lists none. Repair the driver, "
            "or export JAX_PLATFORMS=cpu to train without them"
        )
    return found


def _visible(named: str | None) -> list[str]:
    """The GPUs that CUDA will show: those that CUDA_VISIBLE_DEVICES names, or all."""
    listed = _listed()
    if named is None:
        return [name for name in listed or {} if name.isdecimal()]
    wanted = [gpu.strip() for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    # Without nvidia-smi nobody can tell: JAX will.
    return wanted if listed is None else [_resolve(gpu, listed) for gpu in wanted]


def _resolve(named: str, listed: dict[str, str]) -> str:
    """The one name of a GPU, by whatever name it is called: two who call it differently share its slots."""
    for name, uuid in listed.items():
        if named == name or (not named.isdecimal() and uuid.startswith(named)):
            return name
    raise InputError(
        "CUDA_VISIBLE_DEVICES",
        f"it names {named}, and this machine has {', '.join(listed) or 'no GPU'}",
        "Correct it, or find out by `nvidia-smi -L` where that GPU has gone",
    )


def _listed() -> dict[str, str] | None:
    """Number -> UUID of each GPU (UUID -> UUID for the parts that MIG makes); None if nvidia-smi cannot be asked."""
    if not shutil.which("nvidia-smi"):
        return None
    try:
        text = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        logger.warning("nvidia-smi does not answer (%s)", exc)
        return {}
    whole = {found["index"]: found["uuid"] for line in text.splitlines() if (found := _LISTED.match(line))}
    parts = {found["uuid"]: found["uuid"] for line in text.splitlines() if (found := _LISTED_PART.match(line))}
    return whole | parts


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(variable, f"{text!r} is no number of slots", "Give a number from 1 on, or unset it")
    return int(text)
