"""How many runs a machine has room for: one is measured in a process of its own, the rest is division.

python -P .../flowrl_core/installation.py tasks.sizing ENV TRAINING-AS-JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from flowrl_core.errors import ServiceError
from flowrl_core.installation import command
from flowrl_core.learning.numerics import drop_pinned
from flowrl_core.specs import TrainingSpec
from flowrl_core.storage.layout import HOME_VARIABLE, Home
from tasks.orchestration.devices import GPU_MEMORY, MOST_VARIABLE, PER_GPU_VARIABLE

if TYPE_CHECKING:
    from flowrl_core.stages.memory import Memory

__all__ = ["Machine", "Need", "Proposal", "probe", "propose"]

_HEADROOM = 1.1
"""Times what was measured: plans are longer, and allocators leave gaps."""
_MOST_OF_HOST = 0.9
_CUDA_BYTES = 500 * 10**6
"""What CUDA takes of a GPU for each process, outside the allocator that was asked."""


@dataclass(frozen=True)
class Need:
    """What one run takes, in bytes.

    Attributes:
        platform: cpu or gpu.
        host: of the machine's memory.
        host_compiling: of it, while the first run of these shapes compiles; 0 if that was done before.
        device, device_limit: of the GPU's memory, and what its allocator may take of it; 0 on a CPU.
    """

    platform: str
    host: int
    host_compiling: int
    device: int
    device_limit: int


@dataclass(frozen=True)
class Machine:
    """What there is for runs: cores, bytes of memory, GPUs."""

    cores: int
    memory: int
    gpus: int = 0


@dataclass(frozen=True)
class Proposal:
    """How many runs at a time, on the whole machine and on each GPU (0: no GPU), and what to set for it."""

    slots: int
    per_gpu: int
    settings: Mapping[str, int]


def probe(home: Home, env: str, training: TrainingSpec) -> Need:
    """What one run of these settings takes; compiles first what no run of these shapes has compiled.

    Raises:
        ServiceError: the learner cannot be made or does not fit.
    """
    first = _measured(home, env, training)
    if not first.has_compiled:
        return Need(first.platform, first.host, 0, first.device, first.device_limit)
    second = _measured(home, env, training)
    return Need(second.platform, second.host, first.host, second.device, second.device_limit)


def propose(need: Need, machine: Machine) -> Proposal:
    """The slots that the machine has room for: by memory, and a core each; none if one run does not fit."""
    room = int(_MOST_OF_HOST * machine.memory)
    # Only one compiles at a time.
    room -= max(0, need.host_compiling - need.host)
    by_host = min(machine.cores, max(0, int(room // (_HEADROOM * need.host))))
    if need.platform == "cpu":
        return Proposal(by_host, 0, {MOST_VARIABLE: by_host})
    whole = need.device_limit / GPU_MEMORY
    by_allocator = int(need.device_limit // (_HEADROOM * max(1, need.device)))
    by_context = max(1, int((whole - need.device_limit) // _CUDA_BYTES))
    per_gpu = min(by_allocator, by_context, by_host)
    slots = min(by_host, per_gpu * machine.gpus)
    return Proposal(slots, per_gpu, {PER_GPU_VARIABLE: per_gpu, MOST_VARIABLE: slots})


def _measured(home: Home, env: str, training: TrainingSpec) -> Memory:
    from flowrl_core.stages.memory import Memory

    # A whole GPU, of which nothing is taken before it is needed.
    quiet = {
        HOME_VARIABLE: str(home.root),
        PER_GPU_VARIABLE: "1",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": str(GPU_MEMORY),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    measuring = command("tasks.sizing", env, training.model_dump_json())
    environment = {**os.environ, **quiet}
    drop_pinned(environment)
    # Not in the terminal's group: a Ctrl-C is ours to hear, and ends it.
    done = subprocess.run(measuring, env=environment, stdout=subprocess.PIPE, text=True, check=False, process_group=0)
    if done.returncode:
        raise ServiceError(
            f"the measuring process ended with code {done.returncode}: see above; smaller training.num_envs, "
            "training.width or training.world_pool take less memory"
        )
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _main(env: str, training: str) -> None:
    # What a run has loaded as well.
    import tasks.evaluation
    import tasks.preparation
    import tasks.processing
    import tasks.training  # noqa: F401
    from flowrl_core.learning.learner import shapes_of
    from flowrl_core.stages.memory import measure
    from tasks.orchestration.slots import device_slot

    spec = TrainingSpec.model_validate_json(training)
    with device_slot():
        found = measure(Home.from_environment().cache, shapes_of(env, spec, spec.max_experts))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
