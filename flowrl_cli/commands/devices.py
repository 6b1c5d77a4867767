"""`flowrl devices`: the device slots of this machine, their holders, and how many fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from flowrl_core.specs.skill import TrainingSpec

if TYPE_CHECKING:
    from tasks.orchestration.devices.survey import Survey

__all__ = ["app", "devices", "probe"]

_TRAINING = Group("Training", sort_key=2)
_DEFAULTS = TrainingSpec()

app = App(name="devices", help="List this machine's device slots and their holders.", help_format="plaintext")


@app.default
def devices(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """List this machine's device slots and their holders.

    Parameters
    ----------
    as_json
        Print only JSON.
    """
    from flowrl_cli.views.tables import print_json, print_table, say
    from tasks.orchestration.devices.slots import occupancy, slots_directory, survey_here

    found, survey = occupancy(), survey_here()
    if as_json:
        print_json(
            {
                "directory": str(slots_directory()),
                **_described(survey),
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
    for line in account(survey):
        say(line)


@app.command
def probe(
    *,
    env: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    training: Annotated[TrainingSpec, Parameter(group=_TRAINING)] = _DEFAULTS,
) -> int:
    """Measure one run's memory; from now on this home's number of slots follows from it.

    A separate process trains for two updates and evaluates; it takes a device slot for that. Exit code 1 if not even
    one run fits.

    Parameters
    ----------
    env
        The environment (craftax-classic).
    as_json
        Print only JSON.
    """
    from flowrl_cli.request.inputs import DEFAULT_ENV
    from flowrl_cli.views.tables import print_json, say
    from flowrl_core.storage.layout import Home
    from flowrl_core.text import counted
    from flowrl_core.vocabulary.catalogue import vocabulary
    from tasks.orchestration.devices.needs import record_need
    from tasks.orchestration.devices.slots import survey_here
    from tasks.skill.sizing import probe as probe_run

    env = vocabulary(env or DEFAULT_ENV).env
    home = Home.from_environment()
    home.check_writable()
    survey_here()
    need = probe_run(home, env, training)
    record = record_need(home, need)
    survey = survey_here()
    if as_json:
        print_json(
            {
                "env": env,
                "platform": need.platform,
                "host_bytes": need.host,
                "host_bytes_compiling": need.host_compiling,
                "device_bytes": need.device,
                **_described(survey),
                "slots": len(survey.slots),
                "record": str(record),
            }
        )
    else:
        _tell(need)
        say(*account(survey))
        say(f"Recorded in {record}: from now on this home has {counted(len(survey.slots), 'slot')} on this machine")
    return 0 if survey.room else 1


def account(survey: Survey) -> list[str]:
    """Return the reasons for the number of slots and what the user needs to know of it, one per line."""
    granted, need = survey.granted, survey.need
    by = (
        "measured by `flowrl devices probe`"
        if survey.is_measured
        else "shipped estimate; `flowrl devices probe` measures it"
    )
    cores = f"{granted.share:.3g} core{'' if granted.share == 1 else 's'} ({granted.cores_by})"
    return [
        f"Granted: {cores}, {_gigabytes(granted.memory)} ({granted.memory_by})",
        f"A run takes {_gigabytes(need.host)} ({by}): room for {survey.room} at once",
        *(f"Note: {remark}" for remark in survey.remarks),
    ]


def _described(survey: Survey) -> dict[str, Any]:
    granted = survey.granted
    return {
        "machine": {
            "cores": granted.share,
            "cores_by": granted.cores_by,
            "memory_bytes": granted.memory,
            "memory_by": granted.memory_by,
            "gpus": len({slot.device for slot in survey.slots if slot.kind == "gpu"}),
        },
        "room": survey.room,
        "run_bytes": survey.need.host,
        "is_measured": survey.is_measured,
        "remarks": list(survey.remarks),
    }


def _tell(need: Any) -> None:
    print(f"One run takes {_gigabytes(need.host)} of this machine's memory")
    if need.host_compiling:
        print(f"({_gigabytes(need.host_compiling)} for the first run of its shapes, which compiles: that is now done)")
    if need.device:
        print(
            f"and {_gigabytes(need.device)} of a GPU's, of which its allocator may use {_gigabytes(need.device_limit)}"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
