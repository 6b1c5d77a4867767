"""The GPUs that CUDA would show to a process of this environment.

CUDA_VISIBLE_DEVICES is read as CUDA reads it (CUDA Programming Guide, "CUDA Environment Variables"; of what that
leaves open, PyTorch's `torch/cuda/__init__.py:_parse_visible_devices` says what the driver does):

- unset: all. Empty: none.
- Numbers: what a word begins with counts (` 1`, `01` and `1st` are 1); a list ends before the first word that is no
  number of a GPU here, so `0,-1,1` is GPU 0 alone, and `-1`, `none` or the batch system's `NoDevFiles` is no GPU.
- UUIDs, shortened as long as they name one GPU: `GPU-...`, or parts made by MIG, `MIG-...` (once
  `MIG-GPU-.../gi/ci`). All of the kind of the first; a list ends before the first that is not here.
- The same GPU twice: none at all.

Only one part made by MIG is visible to a process; that is no limit here, where each run is shown one device. Numbers
are those of nvidia-smi, in the order of the bus; runs are started with CUDA_DEVICE_ORDER=PCI_BUS_ID.
NVIDIA_VISIBLE_DEVICES is read by container runtimes, not by CUDA: what it hides, nvidia-smi does not list.
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
    """The GPUs that CUDA will show, in its order, and what to say of it.

    Each is named by its number in nvidia-smi (a part made by MIG by its UUID), and has its UUID: in a container, or in
    a job that may see one GPU alone, every GPU is number 0. Without nvidia-smi nobody can tell what there is; names
    are believed, and stand for UUIDs.

    Raises:
        InputError: GPUs are named, and none of them is here; or their numbers may mean others than nvidia-smi's.
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
    """Bytes of the smallest GPU; 0 if nvidia-smi does not say."""
    query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    return min((int(line) << 20 for line in _nvidia_smi(*query) or () if line.strip().isdecimal()), default=0)


def _named(text: str) -> list[str]:
    """The words of the list up to the first that cannot name a GPU; numbers without what follows them."""
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
    """Number -> UUID of each GPU; UUID -> UUID of the parts that MIG makes."""
    whole = {found["index"]: found["uuid"] for line in listing if (found := _LISTED.match(line))}
    parts = {found["uuid"]: found["uuid"] for line in listing if (found := _LISTED_PART.match(line))}
    return whole | parts


def _resolve(named: str, here: dict[str, str]) -> str | None:
    """The one name of a GPU, by whatever name it is called: two who call it differently share its slots."""
    if named in here:
        return named
    if named.startswith("MIG-GPU-") and any(uuid == named[4:].partition("/")[0] for uuid in here.values()):
        return named  # by its place on the GPU, which newer drivers take but do not list
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
    """The lines of `nvidia-smi -L`; None if there is no such program."""
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
