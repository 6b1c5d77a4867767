"""Device slots of this machine: the allocation of devices to runs.

A slot is a locked file in a directory of the machine, taken before JAX is imported and released by the kernel when its
holder dies. All homes and users of the machine share it; two machines that share a home do not.

A run that takes several slots gets all or none. Runs that wait for several take turns, so that they cannot deadlock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from flowrl_core.errors import ConflictError, InputError
from flowrl_core.storage.ownership import Holder, find_holder, hold_for_all_users
from tasks.orchestration.devices.survey import MOST_VARIABLE, Role, Slot, Survey, survey

__all__ = ["count_slots", "device_slots", "free_slots", "occupancy", "slots_directory", "survey_here"]

logger = logging.getLogger(__name__)

_VARIABLE = "FLOWRL_SLOTS_DIR"
# Not Python's own choice: TMPDIR may differ between users.
_DEFAULT = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / "flowrl-slots"
_POLL_S = 0.25
_TELL_S = 60.0
_PATIENCE_S = 60.0
"""How long a run that needs several slots leaves free ones to others before it accumulates them."""


def survey_here() -> Survey:
    """Return the slots of this machine, and the reasons for their number.

    Raises:
        InputError, ServiceError: see `survey` and `slots_directory`.
    """
    return _survey(slots_directory())


def count_slots() -> int:
    """Return the number of this machine's slots.

    Raises:
        InputError, ServiceError: see `survey_here`.
    """
    return len(survey_here().slots)


def free_slots() -> int:
    """Return the number of this machine's free slots.

    Raises:
        InputError, ServiceError: see `survey_here`.
    """
    return sum(holder is None for _, holder in occupancy())


def occupancy() -> tuple[tuple[Slot, Holder | None], ...]:
    """Return the slots of this machine, each with its holder; None for a free slot.

    Raises:
        InputError, ServiceError: see `survey_here`.
    """
    directory = slots_directory()
    return tuple((slot, find_holder(_lock(directory, slot))) for slot in _survey(directory).slots)


def slots_directory() -> Path:
    """Return the directory of lock files: FLOWRL_SLOTS_DIR, else one for all users of the machine; made if missing.

    Raises:
        InputError: the directory is not absolute, or cannot be made or written.
    """
    directory = Path(os.environ.get(_VARIABLE) or _DEFAULT)
    remedy = f"Set {_VARIABLE} to a directory of this machine that everyone who trains here can write"
    if not directory.is_absolute():
        raise InputError(_VARIABLE, f"{directory} is not absolute", remedy)
    if directory == _DEFAULT and directory.is_symlink():
        raise InputError(_VARIABLE, f"{directory} is a link that anyone could have created", remedy)
    try:
        if not directory.is_dir():
            _make_for_all_users(directory)
    except OSError as exc:
        raise InputError(_VARIABLE, f"{directory} cannot be created ({exc.strerror})", remedy) from exc
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(_VARIABLE, f"{directory} is not writable", remedy)
    return directory


@contextlib.contextmanager
def device_slots(role: Role = "train", count: int = 1) -> Iterator[tuple[Slot, ...]]:
    """Hold `count` free slots for the block, and make their devices the only ones visible to JAX.

    Waits until that many are free. While waiting for several it holds none for the first minute; after that it keeps
    each slot that becomes free, since runs that take one at a time would otherwise never leave it enough. A process
    that holds slots must not request more.

    Args:
        role: the slots' use; an actor's are cores, and hide all GPUs from JAX.

    Raises:
        InputError, ServiceError: see `survey_here`, also if a device disappears while waiting; or the machine has too
            few slots.
    """
    with contextlib.ExitStack() as stack:
        found = _await_slots(stack, role, count)
        logger.info("device slot%s %s", "s" if count > 1 else "", ", ".join(slot.name for slot in found))
        with _confined(found, role):
            yield found


def _await_slots(stack: contextlib.ExitStack, role: Role, count: int) -> tuple[Slot, ...]:
    directory = slots_directory()
    found = _enough(directory, role, count)
    began = looked = time.monotonic()
    taken: list[Slot] = []
    tries, told, is_our_turn = 0, began - _TELL_S, count == 1
    with contextlib.ExitStack() as turn:
        while True:
            is_our_turn = is_our_turn or _locks(turn, directory / f"several-{found[0].kind}.lock")
            if is_our_turn:
                is_patient = time.monotonic() - began < _PATIENCE_S
                taken += _take(stack, directory, found, count - len(taken), all_or_none=is_patient)
            if len(taken) == count:
                return tuple(taken)
            # The kernel does not notify of a free lock. Pauses are random for the sake of `_is_cut_otherwise`.
            time.sleep(_POLL_S * random.uniform(0.5, 1.5))
            tries, now = tries + 1, time.monotonic()
            # Another process may be inspecting a slot just now; the second try then gets it.
            if tries > 1 and now - told >= _TELL_S:
                told = now
                logger.warning("%s: %s", _waiting(count, taken), _holders(directory, found))
            if now - looked >= _TELL_S:
                found, looked = _enough(directory, role, count), now


def _enough(directory: Path, role: Role, count: int) -> tuple[Slot, ...]:
    """Return the slots of the machine.

    Raises:
        InputError: the machine has fewer than `count`.
    """
    found = _survey(directory, role).slots
    if count > len(found):
        problem = f"{count} are requested, but this machine has {len(found)}"
        raise InputError("device slots", problem, f"Ask for fewer, or see `flowrl devices` and {MOST_VARIABLE}")
    return found


def _take(
    stack: contextlib.ExitStack, directory: Path, found: Sequence[Slot], count: int, *, all_or_none: bool
) -> list[Slot]:
    """Lock up to `count` free slots; with `all_or_none`, none if there are fewer."""
    taken: list[Slot] = []
    with contextlib.ExitStack() as attempt:
        for slot in found:
            if len(taken) == count:
                break
            with contextlib.ExitStack() as one:
                # A slot that this process holds already is refused like any other.
                if _locks(one, _lock(directory, slot), note=_cut(slot)) and not _is_cut_otherwise(directory, slot):
                    attempt.push(one.pop_all())
                    taken.append(slot)
        if not taken or (all_or_none and len(taken) < count):
            return []
        stack.push(attempt.pop_all())
    return taken


def _locks(stack: contextlib.ExitStack, path: Path, *, note: str = "") -> bool:
    """Hold the lock file until the stack is closed; return False if another process holds it."""
    with contextlib.suppress(ConflictError):
        stack.enter_context(hold_for_all_users(path, note=note))
        return True
    return False


def _waiting(count: int, taken: Sequence[Slot]) -> str:
    if count == 1:
        return "all device slots are taken, waiting for one"
    return f"waiting for {count} device slots" + (f", holding {len(taken)} of them" if taken else "")


def _is_cut_otherwise(directory: Path, slot: Slot) -> bool:
    """Whether another process holds a share of another size of the same GPU: together they could exceed its memory.

    Two processes that take shares at the same moment may both see the other and both let go; the random pauses resolve
    it.
    """
    if slot.kind == "cpu":
        return False
    mine = _lock(directory, slot)
    others = [path for path in directory.glob(f"{slot.lock_of_device}.*.lock") if path != mine]
    return any(holder.note != _cut(slot) for path in others if (holder := find_holder(path)))


def _cut(slot: Slot) -> str:
    return f"1/{slot.parts}"


def _survey(directory: Path, role: Role = "train") -> Survey:
    return survey(role, known=[path.name for path in directory.glob("*.lock")])


def _lock(directory: Path, slot: Slot) -> Path:
    return directory / f"{slot.lock}.lock"


def _holders(directory: Path, found: Sequence[Slot]) -> str:
    held = ((slot.name, find_holder(_lock(directory, slot))) for slot in found)
    return "; ".join(f"{name} by {holder}" for name, holder in held if holder) or "nobody at the moment"


def _make_for_all_users(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    # The directory must have its mode from the moment it has its name.
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        fresh.chmod(0o1777)
        fresh.rename(directory)
    except OSError:
        fresh.rmdir()
        if not directory.is_dir():
            raise


@contextlib.contextmanager
def _confined(slots: Sequence[Slot], role: Role) -> Iterator[None]:
    if slots[0].kind == "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(slot.device for slot in slots))
        # Otherwise the numbers are not those of nvidia-smi.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if not os.environ.get("XLA_CLIENT_MEM_FRACTION"):  # the newer name of the same setting: XLA refuses both
            os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(_memory_fraction(slots)))
        yield
        return
    if role == "actor":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # Applies to this thread and those that it starts; Prefect's existing threads keep all cores.
    os.sched_setaffinity(0, {int(slot.device) for slot in slots})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _memory_fraction(slots: Sequence[Slot]) -> float:
    """Return the share of each GPU's memory that its run takes; with several GPUs, the smallest share."""
    shares = min(Counter(slot.device for slot in slots).values())
    return round(shares * slots[0].memory_fraction, 3)
