"""Device slots of this machine: which device a run gets.

A slot is a locked file in a directory of the machine, taken before JAX is imported and freed by the kernel when its
holder dies. All homes and all users of the machine share it; two machines that share a home do not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from flowrl_core.errors import ConflictError, InputError
from flowrl_core.storage.ownership import Holder, find_holder, hold_for_all_users
from tasks.orchestration.devices.survey import Slot, Survey, survey

__all__ = ["count_slots", "device_slot", "free_slots", "occupancy", "slots_directory", "survey_here"]

logger = logging.getLogger(__name__)

_VARIABLE = "FLOWRL_SLOTS_DIR"
# Not Python's own choice: TMPDIR may be another one for each user.
_DEFAULT = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / "flowrl-slots"
_POLL_S = 0.25
_TELL_S = 60.0


def survey_here() -> Survey:
    """The slots of this machine, and what their number follows from.

    Raises:
        InputError, ServiceError: as `survey`, `slots_directory`.
    """
    return _survey(slots_directory())


def count_slots() -> int:
    """How many runs this machine has slots for.

    Raises:
        InputError, ServiceError: as `survey_here`.
    """
    return len(survey_here().slots)


def free_slots() -> int:
    """How many of this machine's slots nobody holds now.

    Raises:
        InputError, ServiceError: as `survey_here`.
    """
    return sum(holder is None for _, holder in occupancy())


def occupancy() -> tuple[tuple[Slot, Holder | None], ...]:
    """The slots of this machine, each with who holds it; None where nobody does.

    Raises:
        InputError, ServiceError: as `survey_here`.
    """
    directory = slots_directory()
    return tuple((slot, find_holder(_lock(directory, slot))) for slot in _slots(directory))


def slots_directory() -> Path:
    """Where the lock files are: FLOWRL_SLOTS_DIR, else one directory of the machine for all users; made if need be.

    Raises:
        InputError: it is not absolute, or cannot be made or written.
    """
    directory = Path(os.environ.get(_VARIABLE) or _DEFAULT)
    remedy = f"Set {_VARIABLE} to a directory of this machine that all who train here may write"
    if not directory.is_absolute():
        raise InputError(_VARIABLE, f"{directory} is not absolute", remedy)
    if directory == _DEFAULT and directory.is_symlink():
        raise InputError(_VARIABLE, f"{directory} is a link that anybody may have made", remedy)
    try:
        if not directory.is_dir():
            _make_for_all_users(directory)
    except OSError as exc:
        raise InputError(_VARIABLE, f"{directory} cannot be made ({exc.strerror})", remedy) from exc
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(_VARIABLE, f"{directory} cannot be written", remedy)
    return directory


@contextlib.contextmanager
def device_slot() -> Iterator[Slot]:
    """Hold one free slot for the block, and make its device the only one that JAX will see; waits until one is free.

    Raises:
        InputError, ServiceError: as `survey_here`, also when a device goes while it waits.
    """
    with contextlib.ExitStack() as stack:
        slot = _await_slot(stack)
        logger.info("device slot %s", slot.name)
        with _confined(slot):
            yield slot


def _await_slot(stack: contextlib.ExitStack) -> Slot:
    directory = slots_directory()
    found, looked, told = _slots(directory), time.monotonic(), -_TELL_S
    while True:
        for _ in range(2):  # a slot that somebody is just looking at is taken at the second try
            if slot := _take(stack, directory, found):
                return slot
            # The kernel tells nobody that a lock is free. Not all at the same moment: see `_is_cut_otherwise`.
            time.sleep(_POLL_S * random.uniform(0.5, 1.5))
        now = time.monotonic()
        if now - told >= _TELL_S:
            told = now
            logger.warning("all device slots are taken, waiting for one: %s", _holders(directory, found))
        if now - looked >= _TELL_S:
            found, looked = _slots(directory), now


def _take(stack: contextlib.ExitStack, directory: Path, found: tuple[Slot, ...]) -> Slot | None:
    for slot in found:
        with contextlib.ExitStack() as attempt, contextlib.suppress(ConflictError):
            attempt.enter_context(hold_for_all_users(_lock(directory, slot), note=_cut(slot)))
            if not _is_cut_otherwise(directory, slot):
                stack.push(attempt.pop_all())
                return slot
    return None


def _is_cut_otherwise(directory: Path, slot: Slot) -> bool:
    """Whether somebody holds a share of another size of the same GPU: together they could ask for more than it has.

    Two who take shares at the same moment may both see the other and both let go; then one comes back first.
    """
    if slot.kind == "cpu":
        return False
    mine = _lock(directory, slot)
    others = [path for path in directory.glob(f"{slot.lock_of_device}.*.lock") if path != mine]
    return any(holder.note != _cut(slot) for path in others if (holder := find_holder(path)))


def _cut(slot: Slot) -> str:
    return f"1/{slot.parts}"


def _slots(directory: Path) -> tuple[Slot, ...]:
    return _survey(directory).slots


def _survey(directory: Path) -> Survey:
    return survey(known=[path.name for path in directory.glob("*.lock")])


def _lock(directory: Path, slot: Slot) -> Path:
    return directory / f"{slot.lock}.lock"


def _holders(directory: Path, found: tuple[Slot, ...]) -> str:
    held = ((slot.name, find_holder(_lock(directory, slot))) for slot in found)
    return "; ".join(f"{name} by {holder}" for name, holder in held if holder) or "nobody, just now"


def _make_for_all_users(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    # With its mode from the first moment that it has its name.
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        fresh.chmod(0o1777)
        fresh.rename(directory)
    except OSError:
        fresh.rmdir()
        if not directory.is_dir():
            raise


@contextlib.contextmanager
def _confined(slot: Slot) -> Iterator[None]:
    if slot.kind == "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.device
        # Or the numbers are not those of nvidia-smi.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if not os.environ.get("XLA_CLIENT_MEM_FRACTION"):  # the same by its newer name: XLA refuses both
            os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(slot.memory_fraction))
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # Of this thread and those that it starts; Prefect's, which exist already, keep all cores.
    os.sched_setaffinity(0, {int(slot.device)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
