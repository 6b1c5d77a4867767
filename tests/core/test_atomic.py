import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowrl_core.errors import ConflictError
from flowrl_core.storage.atomic import (
    is_temporary,
    publish_directory,
    remove_directory,
    temporary_beside,
    write_bytes,
    write_json,
)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_write_replaces_the_whole_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new directory" / "ünicode.json"
    write_json(file, {"a": "ä"})
    write_json(file, {"b": [1, 2]})
    assert json.loads(file.read_text()) == {"b": [1, 2]}
    assert _names(file.parent) == [file.name]


def test_a_write_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_json(file, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, float("nan"))
    with pytest.raises(TypeError):
        write_bytes(file, "text")  # type: ignore[arg-type]
    assert file.read_text() == "1\n"
    assert _names(tmp_path) == ["file.json"]


def _directory(path: Path, content: str) -> Path:
    (path / "below").mkdir(parents=True)
    (path / "below" / "file").write_text(content)
    return path


def test_publishing_renames_and_an_identical_directory_is_as_good(tmp_path: Path) -> None:
    final = tmp_path / "final"
    publish_directory(_directory(temporary_beside(final), "one"), final)
    publish_directory(_directory(temporary_beside(final), "one"), final)
    assert (final / "below" / "file").read_text() == "one"
    assert _names(tmp_path) == ["final"]


def test_publishing_over_other_content_is_refused(tmp_path: Path) -> None:
    final = tmp_path / "final"
    publish_directory(_directory(temporary_beside(final), "one"), final)
    with pytest.raises(ConflictError, match="final exists"):
        publish_directory(_directory(temporary_beside(final), "two"), final)
    assert (final / "below" / "file").read_text() == "one"


def test_removing_is_silent_about_what_is_gone(tmp_path: Path) -> None:
    remove_directory(tmp_path / "absent")
    remove_directory(_directory(tmp_path / "present", "one"))
    assert _names(tmp_path) == []


def test_temporary_names_are_told_from_others(tmp_path: Path) -> None:
    assert is_temporary(temporary_beside(tmp_path / "x"))
    assert not is_temporary(tmp_path / "x")


PASSING = (
    "from flowrl_core.storage.atomic import crash_point\n"
    "for _ in range(5): crash_point('here'); print('passed', flush=True)"
)


def _pass(**environment: str) -> subprocess.Popen[str]:
    """A process that passes a point five times."""
    return subprocess.Popen(
        [sys.executable, "-c", PASSING], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("at", "passed"), [("here", 0), ("here:3", 2), ("elsewhere", 5)])
@pytest.mark.parametrize("is_file", [False, True])
def test_a_crash_point_kills_at_the_named_passing(tmp_path: Path, at: str, passed: int, is_file: bool) -> None:
    file = tmp_path / "crash"
    file.write_text(at)
    process = _pass(FLOWRL_CRASH_FILE=str(file)) if is_file else _pass(FLOWRL_CRASH_AT=at)
    assert process.communicate(timeout=60)[0].count("passed") == passed
    assert process.returncode == (0 if passed == 5 else -signal.SIGKILL)
    assert file.exists() == (not is_file or passed == 5)


def test_a_crash_file_ends_one_process_and_an_absent_one_none(tmp_path: Path) -> None:
    file = tmp_path / "crash"
    file.write_text("here:2")
    processes = [_pass(FLOWRL_CRASH_FILE=str(file)) for _ in range(3)]
    assert sorted(process.wait(timeout=60) for process in processes) == [-signal.SIGKILL, 0, 0]
    assert _pass(FLOWRL_CRASH_FILE=str(file)).wait(timeout=60) == 0


def test_a_crash_file_can_make_a_process_hang(tmp_path: Path) -> None:
    file = tmp_path / "crash"
    file.write_text("here:2:hang")
    process = _pass(FLOWRL_CRASH_FILE=str(file))
    assert process.stdout is not None and process.stdout.readline() == "passed\n"
    deadline = time.monotonic() + 60
    while file.exists():
        assert time.monotonic() < deadline
    assert process.poll() is None
    assert [path.name for path in tmp_path.iterdir()] == [f"crash.{process.pid}"]
    process.kill()
    assert process.communicate(timeout=60)[0] == "", "nothing after the point"
