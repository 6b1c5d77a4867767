"""A disk without room: refused before anything is written, told at once, and what runs is stopped without writing."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowrl_cli.commands.doctor import examine
from flowrl_cli.server import embedded
from flowrl_cli.server.care import Pantry
from flowrl_cli.server.processes import MARK_VARIABLE, find, marked, spawn, stop
from flowrl_cli.server.record import Record
from flowrl_core.errors import ConflictError, NoRoomError, StorageError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.room import check_going_on, naming_no_room

CAMPAIGN = ("campaign", "--env", "corridor", "--target", "dig_a")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with these options where the home will be, and says where that is."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this machine lets nobody mount a file system")
        return place

    yield mount
    while subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False).returncode == 0:
        pass


def fill(place: Path, left: int = 0) -> Path:
    """Leave so many bytes."""
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        try:
            file.write(b"\0" * max(0, shutil.disk_usage(place).free - left))
        except OSError as exc:
            assert exc.errno == errno.ENOSPC
    return ballast


@pytest.mark.parametrize(
    ("options", "said"), [("size=6m", ("6 MB free", "64 MB")), ("size=200m,nr_inodes=90", ("files free", "500 files"))]
)
def test_a_disk_without_room_is_refused_before_anything_is_written(
    disk, home, flowrl_here, refused, monkeypatch, options, said
):
    place = disk(options) / "home"
    monkeypatch.setenv("FLOWRL_HOME", str(place))
    for command in (CAMPAIGN, ("up",), ("up", "--worker-only", "--server", "http://127.0.0.1:1/api")):
        refused(flowrl_here(*command), str(place), *said, "Free some space", "FLOWRL_HOME")
    assert not place.exists()
    (found,) = [one for one in examine() if one.what == "disk"]
    assert found.state == "wrong" and said[0] in found.found


def test_what_cannot_be_written_any_more_is_named_and_told_of_only_when_it_stays_so(disk, flowrl_here, monkeypatch):
    place = disk("size=40m")
    home = Home(place / "home")
    home.root.mkdir()
    pantry = Pantry(home)
    pantry.look()
    ballast = fill(place)
    pantry.look()  # a file that is gone again the next time
    ballast.unlink()
    pantry.look()
    fill(place)
    pantry.look()
    with pytest.raises(NoRoomError, match=rf"written to {home.root}: 0 MB free\. Nothing is lost: .* Free some space"):
        pantry.look()
    monkeypatch.setenv("FLOWRL_HOME", str(home.root))
    assert f"Trouble: nothing more can be written to {home.root}" in flowrl_here("status").stdout
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(NoRoomError, match="Read-only file system"):
        check_going_on(home)
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    check_going_on(home)
    assert list(home.root.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_an_error_of_a_full_disk_or_quota_is_named_and_no_other(tmp_path, number):
    home = Home(tmp_path)
    with pytest.raises(NoRoomError, match=os.strerror(number)), naming_no_room(home):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))
    for other in (PermissionError(errno.EACCES, "no", "/elsewhere"), ConflictError("theirs"), StorageError("broken")):
        with pytest.raises(type(other)) as raised, naming_no_room(home):
            raise other
        assert raised.value is other


@pytest.mark.parametrize("how", ["full", "no names", "read-only"])
@pytest.mark.parametrize("stopped_by", [embedded.down, embedded.leave])
def test_what_runs_is_stopped_without_writing(disk, tmp_path, how, stopped_by):
    place = disk("size=1m,nr_inodes=20")
    home = Home(place / "home")
    home.root.mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = spawn(
        "workers", command, environment={**os.environ, MARK_VARIABLE: "full"}, directory=tmp_path, log=tmp_path / "log"
    )
    try:
        replace(Record("full", port=1), processes=(started,)).save(home)
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        elif how == "full":
            fill(place)
        else:
            for number in range(20):
                try:
                    (place / str(number)).touch()
                except OSError:
                    break
        assert stopped_by(home) is True
        assert find(started) is None and marked("full") == []
        assert home.embedded.exists() == (how == "read-only")
    finally:
        stop(marked("full"))
