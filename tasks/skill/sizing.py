"""Measure the resources of one run, in a separate process.

python -P .../flowrl_core/installation.py tasks.skill.sizing ENV TRAINING-AS-JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from flowrl_core.compiled.numerics import drop_ignored
from flowrl_core.errors import ServiceError
from flowrl_core.installation import command
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.layout import HOME_VARIABLE, Home
from tasks.orchestration.children import run_child
from tasks.orchestration.devices.needs import GPU_MEMORY, Need
from tasks.orchestration.devices.survey import PER_GPU_VARIABLE

if TYPE_CHECKING:
    from flowrl_core.stages.skill.memory import Memory

__all__ = ["probe"]


def probe(home: Home, env: str, training: TrainingSpec) -> Need:
    """Return the resources of one run with these settings; compiles first if no run of these shapes has.

    Raises:
        ServiceError: the learner cannot be built or does not fit.
    """
    first = _measured(home, env, training)
    if not first.has_compiled:
        return Need(first.platform, first.host, 0, first.device, first.device_limit)
    second = _measured(home, env, training)
    return Need(second.platform, second.host, first.host, second.device, second.device_limit)


def _measured(home: Home, env: str, training: TrainingSpec) -> Memory:
    from flowrl_core.stages.skill.memory import Memory

    # A whole GPU, without preallocation.
    quiet = {
        HOME_VARIABLE: str(home.root),
        PER_GPU_VARIABLE: "1",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": str(GPU_MEMORY),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    measuring = command("tasks.skill.sizing", env, training.model_dump_json())
    environment = {**os.environ, **quiet}
    environment.pop("XLA_CLIENT_MEM_FRACTION", None)  # the newer name of the same setting: XLA refuses both
    drop_ignored(environment)
    # Not in the terminal's process group: this process handles a Ctrl-C and ends the child.
    done = run_child(measuring, env=environment, stdout=subprocess.PIPE, process_group=0)
    if done.returncode:
        raise ServiceError(
            f"the measuring process ended with code {done.returncode}: see above; smaller training.num_envs, "
            "training.width or training.world_pool take less memory"
        )
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _main(env: str, training: str) -> None:
    # A run has these modules loaded as well.
    import tasks.skill.evaluation
    import tasks.skill.preparation
    import tasks.skill.processing
    import tasks.skill.training  # noqa: F401
    from flowrl_core.learning.shapes import shapes_of
    from flowrl_core.stages.skill.memory import measure
    from tasks.orchestration.devices.slots import device_slots

    spec = TrainingSpec.model_validate_json(training)
    with device_slots():
        found = measure(Home.from_environment().cache, shapes_of(env, spec, spec.max_experts))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
