"""Nothing that lies on the disk is executed when it is read."""

import pickle
import shutil
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from corridor_runs import begin, copy_home, drive, make_spec

from flowrl_core.compiled import cache
from flowrl_core.errors import CorruptError, InputError
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.overrides import resolve
from flowrl_core.storage.checkpoints import content_hash, save_tree
from flowrl_core.storage.manifests import verify
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get

SPEC = make_spec(
    "careful",
    "make_b",
    training={"frames": 8_000, "checkpoint_updates": 4},
    evaluation={"target": 0.05, "min_frames": 2_048, "min_episodes": 16, "episodes": 128, "threshold": 0.2},
)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


@pytest.fixture
def no_unpickling(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("load", "loads"):
        monkeypatch.setattr(cloudpickle, name, refuse)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(b"")  # noqa: S301


def test_a_run_reads_checkpoints_versions_worlds_and_programs_without_unpickling(basics, tmp_path, no_unpickling):
    home = copy_home(basics, tmp_path / "home")
    run = begin(home, SPEC, "make_b").run
    config = resolve("make_b", SPEC)
    cache._read.cache_clear()
    stopped = drive(home, run, config, should_stop=iter([False] * 6 + [True]).__next__)
    assert stopped is None
    cache._read.cache_clear()
    assert drive(home, run, config).verdict == "learned"


@pytest.mark.long
def test_a_pickle_among_the_worlds_is_refused_and_not_executed(basics, tmp_path):
    home = copy_home(basics, tmp_path / "home")
    home.cache.unlink()
    shutil.copytree(basics.cache, home.cache)
    sprung = tmp_path / "sprung"
    worlds = next(home.cache.rglob("worlds.npz"))
    size = worlds.stat().st_size
    np.savez(worlds, **{"000": np.array([Trap(sprung)], dtype=object)})
    with worlds.open("ab") as file:
        file.write(b"\0" * max(0, size - worlds.stat().st_size))
    cache._read.cache_clear()
    try:
        with pytest.raises((ValueError, OSError)), np.load(worlds) as file:
            _ = file["000"]
        run = begin(home, SPEC, "make_b").run
        assert drive(home, run, resolve("make_b", SPEC)).verdict == "learned", "the files were made again"
    finally:
        cache._read.cache_clear()
    assert not sprung.exists()


def test_parameters_put_in_the_place_of_others_are_noticed(basics, tmp_path):
    home = copy_home(basics, tmp_path / "home")
    with Registry.open(home) as registry:
        content = next(record.head.content for record in registry.library.experts() if record.head)
    forged = {"w": np.zeros(3, np.float32)}
    shutil.rmtree(home.version(content))
    save_tree(home.version(content), forged)
    verify(home.version(content))
    assert content_hash(forged) != content
    with pytest.raises(CorruptError, match="do not match its name"):
        get(home, content)


@pytest.mark.parametrize("expression", ["__import__('os').system('true')", "open('/etc/passwd')", "inv.__class__"])
def test_what_a_knowledge_base_says_is_parsed_and_never_evaluated(tmp_path, expression):
    text = shipped("corridor").read_text().replace('"since.a >= n"', f'"{expression}"')
    (tmp_path / "k.toml").write_text(text)
    with pytest.raises(InputError):
        load_knowledge(tmp_path / "k.toml")
