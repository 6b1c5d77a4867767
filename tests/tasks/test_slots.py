import contextlib
import itertools
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from flowrl_core.errors import InputError, ServiceError, StorageError
from flowrl_core.storage.ownership import find_holder, hold_for_all_users
from tasks.orchestration.devices.slots import count_slots, device_slots, free_slots, occupancy, slots_directory
from tasks.orchestration.devices.survey import slots

pytestmark = pytest.mark.usefixtures("machine")

NOBODY = 65534
HOLD = """
import os, sys
from tasks.orchestration.devices.slots import device_slots
if len(sys.argv) > 1:
    os.setgid(int(sys.argv[1])), os.setuid(int(sys.argv[1]))
with device_slots(os.environ.get("ROLE", "train"), int(os.environ.get("COUNT", "1"))) as slots:
    gpu = [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION")]
    print(*(slot.name for slot in slots), *gpu, flush=True)
    sys.stdin.read()
"""
TAKE_SEVERAL = """
import sys, time
from tasks.orchestration.devices import slots as module
from tasks.orchestration.devices.slots import device_slots
module._PATIENCE_S = float(sys.argv[2])
for _ in range(4):
    with device_slots("actor", int(sys.argv[1])) as slots:
        print(time.time(), *(slot.name for slot in slots), flush=True)
        time.sleep(0.05)
        print(time.time(), *(slot.name for slot in slots), flush=True)
"""


@contextlib.contextmanager
def holding(*user, **variables):
    """Another process that holds a slot, and what it says of it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, *map(str, user)],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield holder, holder.stdout.readline().split()
    finally:
        holder.kill()
        holder.communicate()


def test_there_is_a_slot_per_core_and_at_most_as_many_as_asked_for(monkeypatch):
    assert 1 <= count_slots() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    assert count_slots() == 1


@pytest.mark.parametrize("variable", ["FLOWRL_SLOTS", "FLOWRL_SLOTS_PER_GPU"])
@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "100000"])
def test_a_wrong_number_of_slots_is_refused(monkeypatch, variable, text):
    monkeypatch.setenv(variable, text)
    with pytest.raises(InputError, match=f"{variable}: '{text}'"):
        slots()


def test_a_holder_has_one_core_of_its_own_for_the_block():
    before = os.sched_getaffinity(0)
    with device_slots() as (slot,):
        assert os.sched_getaffinity(0) == {int(slot.device)}
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_two_holders_have_different_devices():
    with device_slots() as (one,):
        # The second holder must see all cores, as another process does.
        os.sched_setaffinity(0, range(os.cpu_count()))
        with device_slots() as (other,):
            assert one.device != other.device


def test_the_slot_of_a_killed_process_is_free_at_once_though_its_file_stays(machine, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    with holding() as (holder, (name, *_)):
        assert free_slots() == 0
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert f'"pid": {holder.pid}' in (machine / f"{name}.lock").read_text(), "it could not clean up"
        assert free_slots() == 1
        with device_slots() as (slot,):
            assert slot.name == name
            assert [holder.pid for _, holder in occupancy()] == [os.getpid()]
    assert (machine / f"{name}.lock").read_text() == ""


def test_who_waits_says_at_once_for_whom_and_goes_on_when_the_slot_is_free(monkeypatch, caplog):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    caplog.set_level(logging.WARNING)
    got = threading.Event()

    def wait():
        with device_slots():
            got.set()

    with holding() as (holder, (name, *_)):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.wait(2.0)
        assert f"{name} by process {holder.pid} of " in caplog.text
        assert len(caplog.records) == 1, "the next line comes after a minute"
        holder.send_signal(signal.SIGKILL)
        assert got.wait(5.0)
        waiter.join()


two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")


@two_cores
def test_several_slots_are_all_cores_that_the_holder_has():
    before = os.sched_getaffinity(0)
    with device_slots("actor", 2) as slots:
        assert len({slot.device for slot in slots}) == 2
        assert os.sched_getaffinity(0) == {int(slot.device) for slot in slots}
        os.sched_setaffinity(0, before)
        assert {slot for slot, holder in occupancy() if holder} == set(slots)
    assert not [holder for _, holder in occupancy() if holder]


@two_cores
@pytest.mark.parametrize("patience", [60, 0])
def test_processes_that_want_several_slots_each_all_get_them_and_never_share_one(monkeypatch, patience):
    monkeypatch.setenv("FLOWRL_SLOTS", "2")
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKE_SEVERAL, count, str(patience)], stdout=subprocess.PIPE, text=True)
        for count in ("2", "2", "2", "1")
    ]
    try:
        said = [taker.communicate(timeout=120)[0].splitlines() for taker in takers]
    finally:
        for taker in takers:
            taker.kill()
    assert [len(lines) for lines in said] == [8] * 4
    turns = [
        (float(began.split()[0]), float(ended.split()[0]), set(began.split()[1:]))
        for lines in said
        for began, ended in zip(lines[::2], lines[1::2], strict=True)
    ]
    clashes = [
        (one, other)
        for one, other in itertools.combinations(turns, 2)
        if one[2] & other[2] and max(one[0], other[0]) < min(one[1], other[1])
    ]
    assert clashes == []


@contextlib.contextmanager
def waiting_for(count):
    """A thread that waits for so many slots: an event that it has them, and one that lets it go."""
    got, end = threading.Event(), threading.Event()

    def take():
        with device_slots(count=count):
            got.set()
            end.wait(60)

    waiter = threading.Thread(target=take, daemon=True)
    waiter.start()
    try:
        yield got, end
    finally:
        end.set()
        waiter.join(10)


def hold(slot):
    """Hold a slot as another process would: what is locked twice conflicts within a process, too."""
    held = contextlib.ExitStack()
    held.enter_context(hold_for_all_users(slots_directory() / f"{slot.lock}.lock", note=f"1/{slot.parts}"))
    return held


def until_kept(*kept):
    deadline = time.monotonic() + 10
    while [slot for slot, holder in occupancy() if holder] != list(kept):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@two_cores
def test_who_waits_for_several_leaves_a_free_one_to_others_at_first(monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "2")
    with holding() as (holder, _), waiting_for(2) as (got, _):
        assert not got.wait(1.5)
        assert any(free_slots() for _ in range(20)), "it is taken for a moment only"
        with holding() as (_, (name, *_)):
            assert name, "the other slot"
        assert not got.is_set()
        holder.kill()
        assert got.wait(10)


@two_cores
def test_but_keeps_it_in_the_end_for_else_it_would_never_have_its_turn(monkeypatch, caplog):
    monkeypatch.setenv("FLOWRL_SLOTS", "2")
    monkeypatch.setattr("tasks.orchestration.devices.slots._PATIENCE_S", 0.5)
    with holding() as (holder, (theirs, *_)), waiting_for(2) as (got, _):
        deadline = time.monotonic() + 10
        while free_slots() and time.monotonic() < deadline:
            time.sleep(0.1)
        held = {slot.name: holder.pid for slot, holder in occupancy() if holder}
        assert held.pop(theirs) == holder.pid and list(held.values()) == [os.getpid()]
        assert not got.is_set() and "waiting for 2 device slots" in caplog.text
        holder.kill()
        assert got.wait(10)


@two_cores
def test_two_that_wait_for_several_take_turns_and_never_keep_what_the_other_waits_for(monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "2")
    monkeypatch.setattr("tasks.orchestration.devices.slots._PATIENCE_S", 0.0)
    for _ in range(5):
        first, second = map(hold, slots())
        with waiting_for(2) as (one, end_one), waiting_for(2) as (other, end_other):
            first.close()
            time.sleep(0.5)  # by now it is kept
            second.close()
            deadline = time.monotonic() + 10
            while not (one.is_set() or other.is_set()):
                assert time.monotonic() < deadline, "each keeps one"
                time.sleep(0.02)
            (end_one if one.is_set() else end_other).set()
            assert one.wait(10) and other.wait(10)


def test_what_is_kept_counts_towards_what_is_wanted(listing, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS_PER_GPU", "2")
    monkeypatch.setattr("tasks.orchestration.devices.slots._PATIENCE_S", 0.0)
    found = slots()
    others = [hold(slot) for slot in found[:3]]
    with waiting_for(2) as (got, _):
        until_kept(*found)
        for other in others:
            other.close()
        assert got.wait(10)
        assert len([holder for _, holder in occupancy() if holder]) == 2


def test_more_slots_than_the_machine_has_are_refused_at_once(monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    with (
        pytest.raises(InputError, match="device slots: 2 are requested, but this machine has 1"),
        device_slots(count=2),
    ):
        pass


def test_an_actor_has_a_core_and_no_gpu_where_training_has_the_gpus(listing):
    assert {slot.kind for slot in slots()} == {"gpu"}
    with holding() as (_, (training, *_)), holding(ROLE="actor") as (_, (acting, *_)):
        assert (training, acting) == ("gpu-0.0", slots("actor")[0].name)
    with device_slots("actor"):
        assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_several_gpus_are_seen_together_each_with_the_share_that_is_held(listing, monkeypatch):
    with holding(COUNT="2") as (_, found):
        assert found == ["gpu-0.0", "gpu-1.0", "0,1", "0.9"]
    with holding(COUNT="3", FLOWRL_SLOTS_PER_GPU="3") as (_, found):
        assert found == ["gpu-0.0", "gpu-1.0", "gpu-0.1", "0,1", "0.3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with holding(COUNT="2", FLOWRL_SLOTS_PER_GPU="3") as (_, found):
        assert found == ["gpu-1.0", "gpu-1.1", "1", "0.6"]


def test_what_others_put_in_the_place_of_a_lock_is_refused(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    slots_directory()
    lock, mine = machine / f"{slots()[0].name}.lock", tmp_path / "mine"
    mine.write_text("precious")
    os.link(mine, lock)
    with pytest.raises(StorageError, match="not a regular file"), device_slots():
        pass
    lock.unlink()
    lock.symlink_to(mine)
    with pytest.raises(StorageError, match="is a link"), device_slots():
        pass
    assert mine.read_text() == "precious"


def test_a_directory_that_cannot_serve_is_refused(monkeypatch, tmp_path):
    for wrong in ("slots", str(tmp_path / "file" / "slots"), "/proc/flowrl"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("FLOWRL_SLOTS_DIR", wrong)
        with pytest.raises(InputError, match="FLOWRL_SLOTS_DIR"):
            count_slots()


@pytest.fixture
def common(monkeypatch):
    """A directory that other users reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        os.chmod(path, 0o755)
        monkeypatch.setenv("FLOWRL_SLOTS_DIR", f"{path}/slots")
        yield slots_directory()


@pytest.fixture
def secretive():
    """Whoever makes a file would keep it to himself."""
    before = os.umask(0o077)
    yield
    os.umask(before)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@needs_root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_users_of_a_machine_share_its_slots(secretive, common, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "2")
    with holding(NOBODY) as (first, (theirs, *_)), holding() as (second, (mine, *_)):
        assert free_slots() == 0
        held = {slot.name: (holder.pid, holder.user) for slot, holder in occupancy()}
        assert held == {theirs: (first.pid, "nobody"), mine: (second.pid, "root")}
    assert stat.S_IMODE(common.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in common.iterdir()} == {0o666}
    with holding(NOBODY) as (_, (theirs, *_)):  # the file of the first may be root's now
        assert (common / f"{theirs}.lock").exists()


@needs_root
def test_a_lock_file_that_may_only_be_read_is_a_lock_all_the_same(common, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    lock = common / f"{slots()[0].name}.lock"
    lock.touch(0o644)
    with holding(NOBODY) as (_, (name, *_)):
        assert f"{name}.lock" == lock.name
        assert free_slots() == 0
        assert str(find_holder(lock)) == "an unknown process"


@needs_root
def test_a_lock_file_that_its_owner_keeps_is_no_free_slot(common, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS", "1")
    (common / f"{slots()[0].name}.lock").touch(0o600)
    code = (
        f"import os; from tasks.orchestration.devices.slots import free_slots; os.setuid({NOBODY}); print(free_slots())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"0\n"


def test_each_gpu_is_a_slot_and_its_holder_sees_that_one_alone(listing):
    assert [slot.name for slot in slots()] == ["gpu-0.0", "gpu-1.0"]
    with holding() as (_, first), holding() as (_, second):
        assert first == ["gpu-0.0", "0", "0.9"]
        assert second == ["gpu-1.0", "1", "0.9"]
        assert free_slots() == 0


def test_a_gpu_is_cut_into_shares_and_its_memory_with_it(listing, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS_PER_GPU", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    with holding() as (_, first), holding() as (_, second):
        assert first == ["gpu-1.0", "1", "0.45"]
        assert second == ["gpu-1.1", "1", "0.45"]
    with holding(XLA_PYTHON_CLIENT_MEM_FRACTION="0.2") as (_, third):
        assert third == ["gpu-1.0", "1", "0.2"], "what a user says stays"


def test_other_gpus_are_taken_before_a_second_share(listing, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS_PER_GPU", "2")
    assert [slot.name for slot in slots()] == ["gpu-0.0", "gpu-1.0", "gpu-0.1", "gpu-1.1"]


def test_shares_of_different_sizes_are_never_held_of_one_gpu(listing):
    """A whole GPU and half of it together: one user's settings are not another's."""
    with holding() as (_, (whole, *_)), holding(FLOWRL_SLOTS_PER_GPU="2") as (_, (half, *_)):
        assert (whole, half) == ("gpu-0.0", "gpu-1.0")
        with holding(FLOWRL_SLOTS_PER_GPU="2") as (_, (other_half, *_)):
            assert other_half == "gpu-1.1"


def test_jobs_that_see_one_gpu_each_as_number_0_do_not_wait_for_each_other(listing):
    one, other = (f"GPU 0: NVIDIA H200 (UUID: GPU-{uuid})\n" for uuid in ("aa11", "bb22"))
    listing.write_text(one)
    with holding() as (_, first):
        assert free_slots() == 0
        listing.write_text(other)
        assert free_slots() == 1
        with holding() as (_, second):
            assert first == second == ["gpu-0.0", "0", "0.9"]
        listing.write_text(other + one.replace("GPU 0", "GPU 1"))
        assert [slot.name for slot, holder in occupancy() if holder] == ["gpu-1.0"], "the same GPU by another number"


def test_a_gpu_that_is_gone_between_two_runs_is_told(listing, monkeypatch):
    with holding():
        pass
    listing.write_text(listing.read_text().splitlines()[0] + "\n")
    assert [slot.name for slot in slots()] == ["gpu-0.0"], "the others go on"
    listing.write_text("")
    with pytest.raises(ServiceError, match="are gone"), device_slots():
        pass
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert {slot.kind for slot in slots(known=["gpu-0.0.lock"])} == {"cpu"}


def test_a_machine_that_never_had_a_gpu_trains_on_its_cores(listing):
    listing.write_text("")
    with device_slots() as (slot,):
        assert slot.kind == "cpu"
