"""The platform that JAX is to compute on, and whether JAX can start at all.

XLA ends a process with an unknown flag before Python can catch an error. So the environment's flags are tried in a
separate process before a run begins.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

from flowrl_core.compiled.numerics import drop_ignored, left_variables
from flowrl_core.errors import InputError
from tasks.orchestration.children import run_child

__all__ = ["Devices", "ask_jax", "check_flags", "check_memory", "platforms"]

_LIST, _NAME, _FLAGS = "JAX_PLATFORMS", "JAX_PLATFORM_NAME", "XLA_FLAGS"
_KNOWN = ("cpu", "cuda")
_LOGGED = re.compile(r"[EF]\d{4} \S+ +\d+ [^]]*\] (?P<said>.*)")
_PATIENCE_S = 120.0
_PARSE = "from jaxlib import xla_client; xla_client.CompileOptions()"
_MEMORY = ("XLA_PYTHON_CLIENT_", "XLA_CLIENT_")
_OPTIONS = "from jaxlib import xla_client; xla_client.generate_pjrt_gpu_plugin_options()"
_ASK = """
import json, jax
found = jax.devices()
print(json.dumps([found[0].platform, sorted({device.device_kind for device in found}), len(found)]))
"""


@dataclass(frozen=True)
class Devices:
    """JAX's devices: the platform that it computes on, the kinds of its devices, and their number."""

    platform: str
    kinds: tuple[str, ...]
    number: int


def platforms() -> tuple[str, ...]:
    """Return the platforms that JAX_PLATFORMS names, the preferred one first; empty if JAX chooses.

    JAX takes the names verbatim (lower case, no spaces), fails on an unknown name, and computes on the first platform
    that has a device. JAX_PLATFORM_NAME, the deprecated form, holds one name in any case.

    Raises:
        InputError: JAX would fail, or FlowRL has no slots for such a device.
    """
    text, one = os.environ.get(_LIST, ""), os.environ.get(_NAME, "").lower()
    named = tuple(text.split(",")) if text else ()
    _check_known(_LIST, text, named)
    if not one:
        return named
    _check_known(_NAME, one, (one,))
    if named and one not in named:
        raise InputError(_NAME, f"{one!r} is not among those that {_LIST}={text} allows", f"Unset {_NAME}")
    return (one,)


def check_flags() -> None:
    """Check that JAX and XLA can parse the flags of the environment; once a process, and only if any are set.

    Raises:
        InputError: they cannot; the error quotes them.
    """
    if text := os.environ.get(_FLAGS):  # to XLA, blanks are the name of a file
        _check_readable(_FLAGS, text, _PARSE)
    environment = {**os.environ}
    drop_ignored(environment)
    if names := [name for name in left_variables(environment) if name not in (_LIST, _NAME)]:
        _check_readable(", ".join(names), " ".join(environment[name] for name in names), "import jax")


def check_memory() -> None:
    """Check that XLA can parse the variables on a GPU's memory.

    Raises:
        InputError: it cannot; the error quotes XLA.
    """
    if names := sorted(name for name in os.environ if name.startswith(_MEMORY) and os.environ[name]):
        _check_readable(", ".join(names), " ".join(os.environ[name] for name in names), _OPTIONS)


@functools.lru_cache(maxsize=8)
def _check_readable(variables: str, text: str, code: str) -> None:
    done = _try(code)
    if done.returncode:
        problem = f"{text!r} cannot be read: {_reason(done.stderr)}"
        raise InputError(variables, problem, f"Correct or unset {variables}")


def ask_jax() -> Devices:
    """Return the devices that a run of this environment would find, determined in a separate process.

    Raises:
        InputError: JAX or XLA does not start; the field is the most likely variable.
    """
    platforms()
    check_flags()
    done = _try(_ASK)
    if done.returncode:
        raise InputError(_LIST, f"JAX does not start: {_reason(done.stderr)}", f"Unset {_LIST}, or reinstall FlowRL")
    platform, kinds, number = json.loads(done.stdout.splitlines()[-1])
    return Devices(platform, tuple(kinds), number)


def _try(code: str) -> subprocess.CompletedProcess[str]:
    # The child imports from the same places as this process: see `flowrl_core/installation.py`.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    drop_ignored(environment)
    command = [sys.executable, "-P", "-c", code]
    try:
        pipe = subprocess.PIPE
        return run_child(command, env=environment, stdout=pipe, stderr=pipe, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer for {_PATIENCE_S:.0f} s")


def _reason(stderr: str) -> str:
    """Return the cause: the first error of XLA's log without its time and place, else the last line."""
    lines = stderr.strip().splitlines() or ["it ended without output"]
    logged = [found["said"] for line in lines if (found := _LOGGED.match(line))]
    return (logged[0] if logged else lines[-1]).rstrip(".")


def _check_known(variable: str, text: str, named: tuple[str, ...]) -> None:
    for name in named:
        if name not in _KNOWN:
            problem = f"{text!r} names {name!r}, and FlowRL computes on {' or '.join(_KNOWN)}"
            raise InputError(variable, problem, f"Correct it, or unset {variable} and JAX chooses")
