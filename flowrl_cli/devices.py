"""`flowrl devices`: the device slots of this machine, who holds them, and how many there is room for."""

from __future__ import annotations

import os
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from flowrl_core.specs import TrainingSpec

__all__ = ["app", "devices", "probe"]

_TRAINING = Group("Training", sort_key=2)
_DEFAULTS = TrainingSpec()

app = App(name="devices", help="List the device slots of this machine and who holds them.", help_format="plaintext")


@app.default
def devices(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """List the device slots of this machine, and who holds them.

    Parameters
    ----------
    as_json
        Print only JSON.
    """
    from flowrl_cli.tables import print_json, print_table, say
    from tasks.orchestration.slots import occupancy, slots_directory

    found = occupancy()
    if as_json:
        print_json(
            {
                "directory": str(slots_directory()),
                "slots": [
                    {
                        "name": slot.name,
                        "kind": slot.kind,
                        "device": slot.device,
                        "memory_fraction": slot.memory_fraction if slot.kind == "gpu" else None,
                        "holder": {"pid": holder.pid, "user": holder.user, "since": holder.since} if holder else None,
                    }
                    for slot, holder in found
                ],
            }
        )
        return
    rows = [
        (
            slot.name,
            f"{slot.kind} {slot.device}",
            slot.memory_fraction if slot.kind == "gpu" else None,
            holder or "free",
        )
        for slot, holder in found
    ]
    first = ("slot", "holder", "device")
    print_table(("slot", "device", "share of its memory", "holder"), rows, first=first, prose=["holder"])
    say("", f"Lock files: {slots_directory()}")


@app.command
def probe(
    *,
    env: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    training: Annotated[TrainingSpec, Parameter(group=_TRAINING)] = _DEFAULTS,
) -> int:
    """Measure the memory that one run takes, and propose how many slots this machine should have.

    A process of its own trains for two updates and evaluates; it takes a device slot for that. Exit code 1 if not even
    one run fits.

    Parameters
    ----------
    env
        The environment (craftax-classic).
    as_json
        Print only JSON.
    """
    from flowrl_cli.inputs import DEFAULT_ENV
    from flowrl_cli.tables import print_json
    from flowrl_core.envs.vocabularies import vocabulary
    from flowrl_core.storage.layout import Home
    from tasks.sizing import probe as probe_run
    from tasks.sizing import propose

    env = vocabulary(env or DEFAULT_ENV).env
    machine = _machine()
    need = probe_run(Home.from_environment(), env, training)
    found = propose(need, machine)
    exports = [f"export {name}={value}" for name, value in found.settings.items()]
    if as_json:
        print_json(
            {
                "env": env,
                "platform": need.platform,
                "host_bytes": need.host,
                "host_bytes_compiling": need.host_compiling,
                "device_bytes": need.device,
                "machine": {"cores": machine.cores, "memory_bytes": machine.memory, "gpus": machine.gpus},
                "slots": found.slots,
                "slots_per_gpu": found.per_gpu,
                "exports": exports if found.slots else [],
            }
        )
    else:
        _tell(need, machine, found, exports)
    return 0 if found.slots else 1


def _machine() -> Any:
    import psutil

    from tasks.orchestration.devices import slots
    from tasks.sizing import Machine

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = {slot.device for slot in slots() if slot.kind == "gpu"}
    return Machine(cores, psutil.virtual_memory().total, len(gpus))


def _tell(need: Any, machine: Any, found: Any, exports: list[str]) -> None:
    print(f"One run takes {_gigabytes(need.host)} of this machine's memory")
    if need.host_compiling:
        print(f"(the first of its shapes, which compiles, {_gigabytes(need.host_compiling)}: that is done now)")
    if need.device:
        print(
            f"and {_gigabytes(need.device)} of a GPU's, of which its allocator may take {_gigabytes(need.device_limit)}"
        )
    gpus = f", {machine.gpus} GPUs" if machine.gpus else ""
    print(f"There are {machine.cores} cores and {_gigabytes(machine.memory)}{gpus}: room for {found.slots} at a time")
    if not found.slots:
        print("Not one fits: use smaller training.num_envs, training.width or training.world_pool")
        return
    print("\n".join(exports))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
