"""The memory that one run uses, measured on a learner of its shapes."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from flowrl_core.compiled.cache import compilations, compiled_learner, exercise
from flowrl_core.learning.shapes import Shapes

__all__ = ["Memory", "measure"]

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """Peak memory of a process, in bytes.

    Attributes:
        platform: JAX's name of the device: cpu, gpu.
        host: main memory.
        device: device memory; 0 on a CPU.
        device_limit: the limit of the device's allocator; 0 on a CPU.
        has_compiled: whether it had to compile, which uses more memory than a run that finds everything cached.
    """

    platform: str
    host: int
    device: int
    device_limit: int
    has_compiled: bool


def measure(cache: Path, shapes: Shapes) -> Memory:
    """Peak memory of this process after two training updates and one evaluation.

    Call it in a separate process, on a GPU with XLA_PYTHON_CLIENT_PREALLOCATE=false.

    Raises:
        StorageError: the compiled learner cannot be made.
    """
    import jax

    before = compilations()
    exercise(compiled_learner(cache, shapes))
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    is_cpu = device.platform == "cpu"
    return Memory(
        platform=device.platform,
        host=_peak_of_process(),
        device=0 if is_cpu else int(stats.get("peak_bytes_in_use", 0)),
        device_limit=0 if is_cpu else int(stats.get("bytes_limit", 0)),
        has_compiled=compilations() > before,
    )


def _peak_of_process() -> int:
    # Avoid getrusage where possible: its peak is inherited from the parent process.
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
