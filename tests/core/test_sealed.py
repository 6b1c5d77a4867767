"""Sealed directories: the same inputs give the same directory, whole, whoever makes it and whatever is killed."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flowrl_core.errors import InputError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.manifests import verify
from flowrl_core.storage.ownership import exclusive
from flowrl_core.storage.sealed import inputs_hash, seal, sealing_lock

INPUTS = {"numbers": [1, 2, 3], "code": 1}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "hö me")


class Maker:
    """Writes two files, one in a folder, and counts how often."""

    def __init__(self, text="one"):
        self.text = text
        self.count = 0

    def __call__(self, directory):
        self.count += 1
        (directory / "below").mkdir()
        (directory / "below" / "data").write_text(self.text)
        (directory / "empty").touch()


def test_the_same_inputs_are_made_once_whatever_the_order_of_their_keys(home):
    make = Maker()
    first = seal(home, "toy", INPUTS, make)
    assert seal(home, "toy", dict(reversed(INPUTS.items())), make) == first and make.count == 1
    assert first == home.sealed / "toy" / inputs_hash(INPUTS)
    assert (first / "below" / "data").read_text() == "one"
    manifest = verify(first)
    assert manifest["inputs"] == INPUTS and set(manifest["files"]) == {"below/data", "empty"}


def test_other_inputs_or_another_family_are_another_directory(home):
    make = Maker()
    places = {seal(home, *one, make) for one in (("toy", INPUTS), ("other", INPUTS), ("toy", INPUTS | {"code": 2}))}
    assert len(places) == 3 == make.count


@pytest.mark.parametrize("how", ["changed", "gone", "manifest"])
def test_a_damaged_directory_is_told_and_made_again(home, how, caplog):
    make = Maker()
    directory = seal(home, "toy", INPUTS, make)
    data = directory / "below" / "data"
    if how == "gone":
        data.unlink()
    else:
        (data if how == "changed" else directory / "manifest.json").write_text("two")
    with caplog.at_level(logging.WARNING):
        assert seal(home, "toy", INPUTS, make) == directory
    assert str(directory) in caplog.text and "made again" in caplog.text
    assert make.count == 2 and data.read_text() == "one" and verify(directory)


def test_a_maker_that_fails_leaves_nothing(home):
    def fail(directory):
        (directory / "half").write_text("half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        seal(home, "toy", INPUTS, fail)
    assert list((home.sealed / "toy").iterdir()) == []


@pytest.mark.parametrize(("point", "is_there"), [("before_sealed_rename", False), ("after_sealed_rename", True)])
def test_killed_at_any_point_it_is_whole_or_not_there_and_can_be_repeated(home, point, is_there):
    program = (
        "import sys; from pathlib import Path; from flowrl_core.storage.layout import Home\n"
        "from flowrl_core.storage.sealed import seal\n"
        f"seal(Home(Path(sys.argv[1])), 'toy', {INPUTS!r}, lambda path: (path / 'data').write_text('one'))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(home.root)], env={**os.environ, "FLOWRL_CRASH_AT": point}
    )
    assert killed.returncode == -signal.SIGKILL
    directory = home.sealed_directory("toy", inputs_hash(INPUTS))
    assert directory.exists() == is_there
    make = Maker()
    assert verify(seal(home, "toy", INPUTS, make)) and make.count == (0 if is_there else 1)
    assert [path.name for path in directory.parent.iterdir()] == [directory.name], "no leftovers, no lock"


def test_who_wants_what_another_makes_waits_for_it(home):
    make = Maker()
    directory = home.sealed_directory("toy", inputs_hash(INPUTS))
    second = threading.Thread(target=seal, args=(home, "toy", INPUTS, make))
    with exclusive(sealing_lock(directory), what="it"):
        second.start()
        time.sleep(0.3)
        assert second.is_alive() and make.count == 0
    second.join()
    assert make.count == 1


def test_what_is_found_is_young_again(home):
    directory = seal(home, "toy", INPUTS, Maker())
    os.utime(directory, (1.0, 1.0))
    seal(home, "toy", INPUTS, Maker())
    assert time.time() - directory.stat().st_mtime < 60


def test_a_family_whose_name_leads_elsewhere_is_refused(home):
    with pytest.raises(InputError, match="family"):
        seal(home, "../toy", INPUTS, Maker())
