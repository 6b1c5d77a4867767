"""The GPUs that CUDA shows to a process of this environment.

CUDA_VISIBLE_DEVICES is parsed as CUDA does it (CUDA Programming Guide, "CUDA Environment Variables"; for the driver's
behaviour in other cases, see PyTorch's `torch/cuda/__init__.py:_parse_visible_devices`):

- unset: all. Empty: none.
- Numbers: the leading number of a word counts (` 1`, `01` and `1st` are 1); a list ends before the first word that is
  not the number of a GPU here: `0,-1,1` is GPU 0 alone; `-1`, `none` or the batch system's `NoDevFiles` is no GPU.
- UUIDs, as any unique prefix: `GPU-...`, or MIG partitions, `MIG-...` (formerly `MIG-GPU-.../gi/ci`). All must be of
  the kind of the first; a list ends before the first that is not here.
- The same GPU twice: none at all.

A process sees only one MIG partition; that is no limit here, where each run sees one device. Numbers are those of
nvidia-smi, in bus order; runs are started with CUDA_DEVICE_ORDER=PCI_BUS_ID. NVIDIA_VISIBLE_DEVICES is read by
container runtimes, not by CUDA: nvidia-smi does not list what it hides.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess

from flowrl_core.errors import InputError
from tasks.orchestration.children import run_child

__all__ = ["VISIBLE_VARIABLE", "gpu_memory", "visible_gpus"]

logger = logging.getLogger(__name__)

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
_ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
_PATIENCE_S = 30
_LISTED = re.compile(r"^GPU (?P<index>\d+): (?P<model>.*) \(UUID: (?P<uuid>[^)]+)\)$")
_LISTED_PART = re.compile(r"^\s+MIG .*\(UUID: (?P<uuid>[^)]+)\)$")
_NUMBER = re.compile(r"\s*([+-]?\d{1,9})")
_PREFIXES = ("GPU-", "MIG-")


def visible_gpus() -> tuple[dict[str, str], str]:
    """Return the GPUs that CUDA will show, as name -> UUID in CUDA's order, and a remark on them.

    The name is the number in nvidia-smi (for a MIG partition its UUID). UUIDs are needed because in a container, or in
    a job that sees only one GPU, every GPU is number 0. Without nvidia-smi the names are trusted and stand for UUIDs.

    Raises:
        InputError: the variable names GPUs, and none of them is here; or its numbers may differ from nvidia-smi's.
    """
    text, listing = os.environ.get(VISIBLE_VARIABLE), _listing()
    here = None if listing is None else _names(listing)
    if text is None:
        return {name: uuid for name, uuid in (here or {}).items() if name.isdecimal()}, ""
    named = _named(text)
    if named and named[0].isdecimal():
        _check_order(listing or [])
    found: dict[str, str] = {}
    for name in named:
        device = name if here is None else _resolve(name, here)
        if device in found or named.count(name) > 1:
            return {}, f"{VISIBLE_VARIABLE}={text} names {name} twice, so CUDA shows none"
        if device is None:
            return found, _say_missing(text, name, found, here or {})
        found[device] = (here or {}).get(device, device)
    return found, ""


def gpu_memory() -> int:
    """Return the bytes of the smallest GPU; 0 if nvidia-smi does not report them."""
    query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    return min((int(line) << 20 for line in _nvidia_smi(*query) or () if line.strip().isdecimal()), default=0)


def _named(text: str) -> list[str]:
    """Return the words of the list up to the first that cannot name a GPU, reduced to their leading number if any."""
    words = [word.strip() for word in text.split(",")]
    prefix = next((prefix for prefix in _PREFIXES if words[0].startswith(prefix)), "")
    named: list[str] = []
    for word in words:
        number = _NUMBER.match(word)
        if prefix and word.startswith(prefix):
            named.append(word)
        elif not prefix and number and int(number[1]) >= 0:
            named.append(str(int(number[1])))
        else:
            break
    return named


def _names(listing: list[str]) -> dict[str, str]:
    """Return number -> UUID of each GPU, and UUID -> UUID of MIG partitions."""
    whole = {found["index"]: found["uuid"] for line in listing if (found := _LISTED.match(line))}
    parts = {found["uuid"]: found["uuid"] for line in listing if (found := _LISTED_PART.match(line))}
    return whole | parts


def _resolve(named: str, here: dict[str, str]) -> str | None:
    """Return a GPU's canonical name, so that processes that name it differently share its slots; None if unknown."""
    if named in here:
        return named
    if named.startswith("MIG-GPU-") and any(uuid == named[4:].partition("/")[0] for uuid in here.values()):
        return named  # by its position on the GPU, which newer drivers accept but do not list
    found = [name for name, uuid in here.items() if not named.isdecimal() and uuid.startswith(named)]
    return found[0] if len(found) == 1 else None


def _say_missing(text: str, name: str, found: dict[str, str], here: dict[str, str]) -> str:
    listed = ", ".join(here) or "no GPU"
    if not found:
        raise InputError(
            VISIBLE_VARIABLE,
            f"it names {name}, and this machine has {listed}",
            "Correct it, or use `nvidia-smi -L` to find out what happened to that GPU",
        )
    return f"{VISIBLE_VARIABLE}={text} names {name}, and this machine has {listed}: CUDA shows those before it"


def _check_order(listing: list[str]) -> None:
    models = {found["model"] for line in listing if (found := _LISTED.match(line))}
    if len(models) > 1 and os.environ.get(_ORDER_VARIABLE) == "FASTEST_FIRST":
        problem = f"FASTEST_FIRST counts the GPUs of {VISIBLE_VARIABLE} in an order unknown to nvidia-smi"
        raise InputError(_ORDER_VARIABLE, problem, "Set PCI_BUS_ID, or name the GPUs by UUID")


def _listing() -> list[str] | None:
    """Return the lines of `nvidia-smi -L`; None if there is no such program."""
    return _nvidia_smi("-L")


def _nvidia_smi(*arguments: str) -> list[str] | None:
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", *arguments]
    try:
        done = run_child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=_PATIENCE_S)
        done.check_returncode()
    except (OSError, subprocess.SubprocessError) as exc:
        logger.warning("nvidia-smi does not answer (%s)", exc)
        return []
    return done.stdout.splitlines()
