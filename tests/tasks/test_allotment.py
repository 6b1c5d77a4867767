"""Cores and memory are the least that machine, affinity and control groups grant, whatever the kernel shows them as."""

import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from tasks.orchestration.devices.allotment import _chosen, allotment, group_limits
from tasks.orchestration.devices.survey import survey

GB = 10**9
NO_LIMIT = str((1 << 63) - 4096)
V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = """31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"""
OF_V1 = "4:memory:/job/step\n2:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n"


@pytest.fixture
def system(tmp_path):
    """Writes the files of a machine's control groups, as `/proc` and `/sys` would show them."""

    def write(mounts, groups, **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/mountinfo").write_text(mounts + "\n")
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return write


def least(root):
    cores, memory = group_limits(root)
    return min((one.amount for one in cores), default=None), min((one.amount for one in memory), default=None)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a/b/cpu.max": "150000 100000", "a/b/memory.max": "1300000000"}, (1.5, 1.3 * GB)),
        # All groups above limit too.
        ({"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000", "a/memory.max": "2000000000"}, (0.5, 2 * GB)),
        ({"a/b/memory.max": "4000000000", "a/memory.max": "3000000000"}, (None, 3 * GB)),
        ({"a/b/memory.max": "max", "a/b/memory.high": "1000000000"}, (None, 1 * GB)),
        ({"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, (None, None)),
        # The container's own group is the top that it sees.
        ({"cpu.max": "200000 100000", "memory.max": "5000000000"}, (2.0, 5 * GB)),
        ({"c/cpu.max": "100 100000", "c/memory.max": "1"}, (None, None)),
        ({"a/b/cpu.max": "", "a/b/memory.max": "nonsense"}, (None, None)),
    ],
)
def test_limits_of_version_2_hold_for_all_below(system, files, found):
    assert least(system(V2, "0::/a/b\n", **{"a/b/cgroup.procs": "", **files})) == found


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "memory/job/memory.limit_in_bytes": "2000000000",
                "memory/job/step/memory.limit_in_bytes": NO_LIMIT,
            },
            (2.5, 2 * GB),
        ),
        (
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "memory/job/step/memory.limit_in_bytes": NO_LIMIT,
            },
            (None, None),
        ),
        # What groups limit that cannot be seen.
        ({"memory/job/step/memory.stat": "cache 1\nhierarchical_memory_limit 1500000000"}, (None, 1.5 * GB)),
    ],
)
def test_limits_of_version_1_beside_an_empty_version_2(system, files, found):
    above = {"cpu,cpuacct/job/tasks": "", "memory/job/step/tasks": "", "unified/cgroup.procs": ""}
    assert least(system(V1, OF_V1, **above, **files)) == found


@pytest.mark.parametrize(
    ("mounts", "groups"),
    [
        # Without a namespace of its own a container sees the machine's path, and of the mount only its part.
        (V2.replace(" / ", " /docker/1f2e ", 1), "0::/docker/1f2e\n"),
        (V2.replace(" / ", " /docker/1f2e ", 1), "0::/docker/another\n"),
        (V2.replace(" / ", " /.. ", 1), "0::/../../user.slice\n"),
    ],
)
def test_a_container_that_is_shown_only_its_own_group_reads_that(system, mounts, groups):
    assert least(system(mounts, groups, **{"memory.max": "1300000000"})) == (None, 1.3 * GB)


def test_a_mount_whose_name_has_a_space_is_read(system, tmp_path):
    root = system(V2.replace("/sys/fs/cgroup", r"/sys/fs/c\040group"), "0::/\n")
    (root / "sys/fs/c group").mkdir(parents=True)
    (root / "sys/fs/c group/memory.max").write_text("1000\n")
    assert least(root) == (None, 1000)


def test_lines_of_another_form_limit_nothing(system):
    files = {"cpu.max": "max\n", "memory.max": "", "memory.stat": "hierarchical_memory_limit\n"}
    assert group_limits(system(f"\n31 23 cgroup2 - cgroup2\n{V2}", "nothing\n0::/\n", **files)) == ([], [])


def test_a_system_without_control_groups_grants_the_machine(tmp_path):
    found = allotment(tmp_path)
    assert found.cores == tuple(sorted(os.sched_getaffinity(0))) and found.share == len(found.cores)
    assert found.memory == psutil.virtual_memory().total and found.memory_by == "the machine"


@pytest.mark.parametrize(("quota", "share", "number"), [("50000", 0.5, 1), ("100000", 1.0, 1), ("1990000", None, None)])
def test_a_part_of_a_core_is_one_slot_and_a_large_quota_changes_nothing(system, quota, share, number):
    cores = len(os.sched_getaffinity(0))
    found = allotment(system(V2, "0::/\n", **{"cpu.max": f"{quota} 100000"}))
    assert (found.share, len(found.cores)) == ((share or min(19.9, cores)), number or min(19, cores))


def test_containers_of_one_machine_do_not_all_choose_the_same_core(monkeypatch):
    seen = set()
    for name in ("a", "b", "c", "d"):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        chosen = _chosen([0, 1, 2, 3], 2)
        assert len(chosen) == 2 and chosen == tuple(sorted(chosen)) and chosen == _chosen([0, 1, 2, 3], 2)
        seen.add(chosen)
    assert len(seen) > 1
    assert _chosen([3, 5], 2) == (3, 5)


def test_memory_says_how_many_slots_there_are_and_one_always_is(system, monkeypatch, tmp_path):
    """In 1.3 GB not one run is sure to fit beside a server: that is said, and one slot is there to try."""
    for name in ("FLOWRL_SLOTS", "FLOWRL_SLOTS_PER_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "home"))
    root = system(V2, "0::/\n", **{"memory.max": "1300000000"})
    monkeypatch.setattr("tasks.orchestration.devices.survey.allotment", lambda: allotment(root))
    found = survey()
    assert len(found.slots) == 1 and found.room == 0
    assert "not even one run is sure to fit" in found.remarks[0] and str(root / "sys/fs/cgroup") in found.remarks[0]
    (root / "sys/fs/cgroup/memory.max").write_text("8000000000")
    assert len(survey().slots) == min(len(os.sched_getaffinity(0)), 6) and survey().remarks == ()
    (root / "sys/fs/cgroup/memory.max").write_text("2600000000")
    assert len(survey().slots) == survey().room == 1
    if len(os.sched_getaffinity(0)) > 1:
        monkeypatch.setenv("FLOWRL_SLOTS", "2")
        assert len(survey().slots) == 2, "what a person says counts"
        assert "2 slots are requested, but there is room for 1" in survey().remarks[0]


@pytest.fixture
def group():
    """A real control group of this machine, with 1.3 GB and one and a half cores of its own."""
    made: list[Path] = []
    name = f"flowrl-test-{uuid.uuid4().hex[:8]}"
    top = Path("/sys/fs/cgroup")
    limits = [("memory", "memory.limit_in_bytes", "1363148800"), ("cpu", "cpu.cfs_quota_us", "150000")]
    if (top / "cgroup.controllers").exists():
        limits = [("", "memory.max", "1363148800"), ("", "cpu.max", "150000 100000")]
    try:
        for controller, file, text in limits:
            path = top / controller / name
            if not path.exists():
                path.mkdir()
                made.append(path)
            (path / file).write_text(text)
        yield made
    except OSError as exc:
        pytest.skip(f"no control group can be made here: {exc}")
    finally:
        for path in made:
            path.rmdir()


def test_a_process_in_a_real_control_group_is_granted_what_it_has(group):
    code = (
        "import json, os, sys\n"
        "[open(path + '/cgroup.procs', 'w').write(str(os.getpid())) for path in sys.argv[1:]]\n"
        "from tasks.orchestration.devices.allotment import allotment\n"
        "found = allotment()\n"
        "print(json.dumps([found.share, len(found.cores), found.memory, found.memory_by]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, group)], capture_output=True, text=True, check=True)
    share, cores, memory, why = json.loads(done.stdout)
    assert (share, cores) == (min(1.5, len(os.sched_getaffinity(0))), 1)
    assert memory == 1363148800 and group[0].name in why
