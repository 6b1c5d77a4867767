"""`flowrl doctor`: problems of this machine that keep FlowRL from working, and the command that fixes each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flowrl_cli.checks.finding import Diagnosis, bounded
from flowrl_cli.checks.installed import FILES, examine_installation
from flowrl_cli.process.account import check_directory
from flowrl_core.errors import ConflictError, InputError, ServiceError
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.room import Room, shortage

__all__ = ["doctor", "examine", "locks_of"]

# Time limit per check. Importing JAX and Prefect alone takes some seconds.
_QUICK_S = 15.0
_SLOW_S = 30.0
_MEND_INSTALL = "make install"
_MEND_HOME = "export FLOWRL_HOME=/a/directory/you/may/write"


def doctor() -> int:
    """Check versions, disk, slots, devices, registry and server; exit code 1 if there is a problem."""
    from rich.text import Text

    from flowrl_cli.views.tables import console, print_table

    findings = list(examine())
    out = console()
    print_table(("what", "state", "found"), [(f.what, f.state, f.found) for f in findings], prose=["found"])
    wrong = [f for f in findings if f.state == "wrong"]
    for finding in wrong:
        out.print(Text(f"{finding.what}: {finding.mend}"), soft_wrap=True)
    out.print("Problems found: see above." if wrong else "No problems found.")
    return 1 if wrong else 0


def examine() -> Iterator[Diagnosis]:
    """Yield the findings, cheap checks first."""
    installation = list(bounded("installation", examine_installation, seconds=_SLOW_S, mend=_MEND_INSTALL))
    yield from installation
    if any(finding.what == FILES and finding.state == "wrong" for finding in installation):
        return  # the checks below need these files
    from flowrl_cli.checks.services import examine_proxies, examine_server
    from flowrl_cli.checks.stored import examine_library, examine_registry
    from flowrl_cli.checks.variables import examine_variables
    from flowrl_cli.process.surroundings import as_set
    from flowrl_cli.process.ulimits import examine_limits

    home = _home()
    if isinstance(home, Diagnosis):
        yield home
    else:
        yield from bounded("home", lambda: _places(home), seconds=_QUICK_S, mend=_MEND_HOME)
    yield from examine_limits()
    variables, mend = partial(examine_variables, as_set()), "env | grep -e FLOWRL -e PREFECT -e JAX"
    yield from bounded("variables", variables, seconds=_QUICK_S, mend=mend)
    yield from bounded("slots", _slots, seconds=_QUICK_S, mend="flowrl devices")
    yield from bounded("devices", lambda: [_devices()], seconds=_SLOW_S, mend=_MEND_INSTALL)
    yield from bounded("proxies", examine_proxies, seconds=_QUICK_S, mend="env | grep -i proxy")
    if isinstance(home, Home):
        yield from bounded(
            "registry", lambda: examine_registry(home), seconds=_QUICK_S, mend=f"correct or unset {URL_VARIABLE}"
        )
        yield from bounded("library", lambda: examine_library(home), seconds=_SLOW_S, mend="flowrl status")
        yield from bounded("server", lambda: examine_server(home), seconds=_SLOW_S, mend="prefect config view")


def _home() -> Home | Diagnosis:
    try:
        return Home.from_environment()
    except InputError as exc:
        return Diagnosis("home", "wrong", exc.problem, _MEND_HOME)


def _places(home: Home) -> Iterator[Diagnosis]:
    root = home.root
    try:
        check_directory()
    except InputError as exc:
        yield Diagnosis(exc.field, "wrong", exc.problem, exc.remedy)
    existing = next(path for path in (root, *root.parents) if path.exists())
    try:
        home.check_writable()
    except InputError as exc:
        yield Diagnosis("home", "wrong", exc.problem, exc.remedy)
        return
    yield Diagnosis("home", "ok", f"{root} ({'exists' if existing == root else 'will be created'})")
    if little := shortage(home):
        yield Diagnosis("disk", "wrong", little, "free some space, or export FLOWRL_HOME=/a/directory on another disk")
    else:
        yield Diagnosis("disk", "ok", str(Room.at(root)))
    yield locks_of(existing)


def locks_of(directory: Path) -> Diagnosis:
    """Return whether locks work on the directory's file system: without them two processes could work on one run."""
    mend = "export FLOWRL_HOME=/a/directory on a local disk, or mount NFS with locks (without `nolock`)"
    try:
        with tempfile.TemporaryDirectory(prefix=".flowrl-doctor-", dir=directory) as place:
            path = Path(place) / "lock"
            with exclusive(path, what="the lock"):
                try:
                    with exclusive(path, what="the lock"):
                        return Diagnosis("locks", "wrong", f"two processes can hold the same lock in {directory}", mend)
                except ConflictError:
                    return Diagnosis("locks", "ok", "work in the home")
    except OSError as exc:
        return Diagnosis("locks", "wrong", f"{directory}: {exc.strerror}", mend)


def _slots() -> Iterator[Diagnosis]:
    from flowrl_cli.commands.devices import account
    from tasks.orchestration.devices.slots import occupancy, slots_directory, survey_here

    try:
        found, survey = occupancy(), survey_here()
        directory = slots_directory()
    except (InputError, ServiceError) as exc:
        mend = f"correct or unset {exc.field}" if isinstance(exc, InputError) else "nvidia-smi -L"
        yield Diagnosis("slots", "wrong", str(exc), mend)
        return
    free = sum(holder is None for _, holder in found)
    yield Diagnosis(
        "slots", "ok", f"{len(found)} ({', '.join(slot.name for slot, _ in found)}), {free} free; {directory}"
    )
    granted, takes, *notes = account(survey)
    mend = "grant more memory, or set FLOWRL_SLOTS lower; `flowrl devices probe` measures what a run takes"
    fits = len(found) <= survey.room
    yield Diagnosis("room", "ok" if fits else "wrong", "; ".join([granted, takes, *notes]), "" if fits else mend)


def _devices() -> Diagnosis:
    from tasks.orchestration.devices.platforms import ask_jax

    try:
        found = ask_jax()
    except InputError as exc:
        return Diagnosis("devices", "wrong", exc.problem, exc.remedy)
    return Diagnosis("devices", "ok", f"{found.number} x {', '.join(found.kinds)}")
