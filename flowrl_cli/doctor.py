"""`flowrl doctor`: what of this machine would keep FlowRL from working, and the command that mends each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flowrl_core.errors import InputError, ServiceError
from flowrl_core.storage.layout import Home

__all__ = ["Finding", "doctor", "examine"]

# A campaign on the shipped knowledge base leaves some hundred MB: checkpoints, versions, a database, compiled code.
_ROOM_NEEDED_GB = 2.0
_MEND_INSTALL = "make install"
_SERVER_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and the command that mends it (empty when nothing is wrong)."""

    what: str
    state: Literal["ok", "wrong"]
    found: str
    mend: str = ""


def doctor() -> int:
    """Check versions, devices, the server, the disk and FlowRL's home; exit code 1 if something must be mended."""
    from rich.text import Text

    from flowrl_cli.tables import console, make_table

    findings = list(examine())
    out = console()
    out.print(make_table(("what", "state", "found"), [(f.what, f.state, f.found) for f in findings]))
    wrong = [f for f in findings if f.state == "wrong"]
    for finding in wrong:
        out.print(Text(f"{finding.what}: {finding.mend}"), soft_wrap=True)
    out.print("Something must be mended: see above." if wrong else "All is well.")
    return 1 if wrong else 0


def examine() -> Iterator[Finding]:
    """The findings, cheap ones first."""
    yield _python()
    yield from _packages()
    yield from _places()
    yield _server()
    yield _devices()


def _requirements() -> list[str]:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires("flowrl") or []
    except PackageNotFoundError:
        return []


def _python() -> Finding:
    from importlib.metadata import PackageNotFoundError, metadata

    from packaging.specifiers import SpecifierSet

    version = ".".join(map(str, sys.version_info[:3]))
    try:
        supported = SpecifierSet(metadata("flowrl")["Requires-Python"])
    except PackageNotFoundError:
        return Finding("flowrl", "wrong", "the package is not installed", _MEND_INSTALL)
    if version in supported:
        return Finding("python", "ok", version)
    return Finding(
        "python", "wrong", f"{version}, supported {supported}", "install Python 3.11, then run `make install`"
    )


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    for requirement in map(Requirement, _requirements()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        mend = f'{sys.executable} -m pip install "{requirement.name}{requirement.specifier}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "wrong", f"not installed, needs {requirement.specifier}", mend)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding(requirement.name, "ok", found)
        else:
            yield Finding(requirement.name, "wrong", f"{found}, supported {requirement.specifier}", mend)


def _places() -> Iterator[Finding]:
    try:
        root = Home.from_environment().root
    except InputError as exc:
        yield Finding("home", "wrong", exc.problem, "export FLOWRL_HOME=/a/directory/you/may/write")
        return
    existing = next(path for path in (root, *root.parents) if path.exists())
    yield Finding("home", "ok", f"{root} ({'exists' if existing == root else 'will be made'})")
    free = shutil.disk_usage(existing).free / 1e9
    if free >= _ROOM_NEEDED_GB:
        yield Finding("disk", "ok", f"{free:.1f} GB free")
    else:
        mend = "free some room, or export FLOWRL_HOME=/a/directory on another disk"
        yield Finding("disk", "wrong", f"{free:.1f} GB free, {_ROOM_NEEDED_GB:.0f} GB are needed", mend)


def _server() -> Finding:
    from flowrl_cli.configured import configured_url, wait_healthy

    url, mend = configured_url(), "start that server, or `unset PREFECT_API_URL` to use a local one"
    if url is None:
        url, mend = _embedded_url(), "flowrl down"
    if url is None:
        return Finding("server", "ok", "none is configured: `flowrl campaign` starts a local one")
    try:
        wait_healthy(url, seconds=_SERVER_SECONDS)
    except ServiceError as exc:
        return Finding("server", "wrong", str(exc), mend)
    return Finding("server", "ok", url)


def _embedded_url() -> str | None:
    from flowrl_cli.embedded import status

    try:
        running = status(Home.from_environment())
    except InputError:
        return None
    return running.url if running else None


def _devices() -> Finding:
    try:
        import jax

        devices = jax.devices()
    except Exception as exc:  # a broken installation fails here in ways of its own
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        return Finding("devices", "wrong", f"JAX finds none: {reason}", f"unset JAX_PLATFORMS, or {_MEND_INSTALL}")
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("devices", "ok", f"{len(devices)} x {kinds}, {cores} cores")
