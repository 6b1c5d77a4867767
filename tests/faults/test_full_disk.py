"""A campaign through its own server on a disk that fills up, and goes on when there is room again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrl_cli.server import embedded
from flowrl_cli.server.processes import marked
from flowrl_cli.server.record import Record
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
LONG = ("make_b.frames=3000000", "make_b.target=0.99", "make_b.checkpoint_updates=5")
CAMPAIGN = [FLOWRL, "campaign", "--env", "corridor", "--target", "make_b"]
CAMPAIGN += [part for override in LONG for part in ("--override", override)]
_NOTICED_S, _GOES_ON_S = 60.0, 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield place
    (place / "ballast").unlink(missing_ok=True)
    embedded.down(Home(place / "home"))
    subprocess.run(["umount", "--lazy", place], check=True)


def start(place: Path, log: Path) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWRL_", "PREFECT_"))}
    environment = {**kept, "FLOWRL_HOME": str(place / "home"), "FLOWRL_SLOTS_DIR": os.environ["FLOWRL_SLOTS_DIR"]}
    with log.open("wb") as output:
        return subprocess.Popen(CAMPAIGN, env=environment, cwd=log.parent, stdout=output, stderr=output)


def until(condition, seconds: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.timeout(900)  # millions of frames, on a machine that may be busy
@pytest.mark.parametrize("when", ["starting a local", "dig_a: submitted", "make_b: submitted"])
def test_a_disk_that_fills_up_is_told_all_is_stopped_and_with_room_it_goes_on(disk, tmp_path, when):
    home, log = Home(disk / "home"), tmp_path / "first"
    campaign = start(disk, log)
    until(lambda: when in log.read_text(), 120)
    until(lambda: Record.load(home) is not None, 60)
    time.sleep(2)
    mark = Record.load(home).mark
    with contextlib.suppress(OSError):
        (disk / "ballast").write_bytes(b"\0" * (shutil.disk_usage(disk).free + 4_096))
    seconds = until(lambda: campaign.poll() is not None, _NOTICED_S)
    said = log.read_text()
    print(f"{when}: told and stopped after {seconds:.0f} s: {said.splitlines()[-1][:200]}")
    assert campaign.returncode == 1
    assert "[Errno" not in said and "500" not in said
    assert marked(mark) == []
    (disk / "ballast").unlink()
    learned = set()
    if home.registry.exists():
        with Registry.open(home) as registry:
            learned = {name for name, fact in registry.skills.facts("default").items() if fact.learned}
    log = tmp_path / "second"
    again = start(disk, log)
    seconds = until(lambda: "campaign submitted\n" in log.read_text(), _GOES_ON_S)
    print(f"goes on after {seconds:.0f} s")
    assert again.wait(timeout=600) == 0, log.read_text()
    text = log.read_text()
    for name in learned:
        assert f"{name}: already learned" in text and f"{name}: look" not in text
