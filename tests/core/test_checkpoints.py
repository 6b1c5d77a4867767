import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from flax.serialization import from_state_dict, to_state_dict

from flowrl_core.errors import ConflictError, CorruptError, StorageError
from flowrl_core.storage import versions
from flowrl_core.storage.checkpoints import Anew, TrainCheckpoints, content_hash, load_tree, save_tree
from flowrl_core.storage.layout import Home


class Pair(NamedTuple):
    left: Any
    right: Any


@struct.dataclass
class State:
    params: Any
    key: jax.Array


def _tree(seed: int = 0) -> State:
    numbers = np.random.default_rng(seed)
    params = {
        "actor/one": numbers.normal(size=(3, 4)).astype(np.float32),
        "float64": numbers.normal(size=(2,)),
        "special": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "int64": np.int64(2**40 + seed),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.int8),
        "bfloat": jnp.ones((2,), jnp.bfloat16),
        "pair": (Pair(np.uint8([seed]), [np.arange(5, dtype=np.int32)]), ()),
    }
    return State(params, jax.random.PRNGKey(seed))


def _assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, jax.Array) == isinstance(y, jax.Array)
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def _damage(directory: Path, how: str) -> None:
    file = max((f for f in (directory / "tree").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes(content if how == "flipped" else content[:-1])
    if how == "gone":
        file.unlink()


def test_a_tree_comes_back_bit_for_bit_in_the_structure_of_the_template(tmp_path: Path) -> None:
    directory = tmp_path / "a place — ü" / "checkpoint"
    save_tree(directory, _tree(), metadata={"update": 7})
    tree, metadata = load_tree(directory, _tree(1))
    _assert_same(tree, _tree())
    assert metadata == {"update": 7}
    assert [path.name for path in directory.parent.iterdir()] == ["checkpoint"]


def test_nested_dicts_come_back_without_a_template(tmp_path: Path) -> None:
    tree = {
        "a": {"b.c": np.arange(3), "b": {"c": np.arange(4)}},
        "d": np.float32(1),
        "e": {},
        "f": {"g": {}, "h": None},
    }
    save_tree(tmp_path / "x", tree)
    loaded, _ = load_tree(tmp_path / "x")
    _assert_same(loaded, tree)
    assert loaded["e"] == {} and loaded["f"] == {"g": {}, "h": None}
    save_tree(tmp_path / "y", {"a": (np.arange(3),)})
    with pytest.raises(StorageError, match="template"):
        load_tree(tmp_path / "y")


def test_a_state_dict_with_an_optimizer_comes_back(tmp_path: Path) -> None:
    params = {"kernel": jnp.ones((2, 3))}
    state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    save_tree(tmp_path / "x", to_state_dict(state))
    _assert_same(from_state_dict(jax.device_get(state), load_tree(tmp_path / "x")[0]), jax.device_get(state))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"a": np.zeros(3)}, "asked for float64"),
        ({"a": np.zeros(4, np.float32)}, r"asked for float32\[4\]"),
        ({"b": np.zeros(3, np.float32)}, "structure"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(tmp_path: Path, template: Any, message: str) -> None:
    save_tree(tmp_path / "x", {"a": np.zeros(3, np.float32)})
    with pytest.raises(StorageError, match=message):
        load_tree(tmp_path / "x", template)


@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_a_damaged_checkpoint_is_noticed(tmp_path: Path, how: str) -> None:
    save_tree(tmp_path / "x", _tree())
    _damage(tmp_path / "x", how)
    with pytest.raises(CorruptError, match="missing or was changed"):
        load_tree(tmp_path / "x", _tree())


def test_the_content_hash_names_values_types_and_paths_but_not_the_order() -> None:
    a, b = np.arange(4, dtype=np.float32), np.ones(2)
    assert content_hash({"a": a, "b": b}) == content_hash({"b": b.copy(), "a": jnp.asarray(a)})
    others = [{"a": a, "c": b}, {"a": a + 1, "b": b}, {"a": a.reshape(2, 2), "b": b}, {"a": a.view(np.int32), "b": b}]
    assert len({content_hash(tree) for tree in [{"a": a, "b": b}, *others]}) == 5
    # Names on disk: a change of this value would lose every stored version.
    assert content_hash({"a": a, "b": b}) == "4b49cbe0541d9696d7c54866d4ea4ab1"


def test_the_last_checkpoint_is_used_and_only_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = TrainCheckpoints(tmp_path / "c")
    assert checkpoints.latest(_tree()) is None
    for step in (10, 20, 30):
        checkpoints.save(step, _tree(step), metadata={"frames": step})
    assert checkpoints.steps() == [20, 30]
    step, tree, metadata = checkpoints.latest(_tree()) or pytest.fail("none")
    assert (step, metadata) == (30, {"frames": 30})
    _assert_same(tree, _tree(30))


def test_parts_that_an_earlier_version_wrote_otherwise_begin_anew_and_no_others(tmp_path: Path, caplog: Any) -> None:
    def state(worlds: Any, value: float) -> dict[str, Any]:
        return {"learner": {"params": np.full(3, value), "worlds": worlds, "keys": {"a": np.full(2, value)}}}

    TrainCheckpoints(tmp_path).save(10, state({"map": np.ones(4)}, 1.0), metadata={"frames": 5})
    now = state({"map": np.zeros(4), "blows": np.zeros(2)}, 0.0)
    parts = [("learner", "worlds"), ("learner", "keys")]
    with caplog.at_level(logging.WARNING):
        found = TrainCheckpoints(tmp_path, anew=Anew(parts, lambda: now)).latest(now)
    assert found is not None and found[2] == {"frames": 5}
    _assert_same(found[1], state({"map": np.zeros(4), "blows": np.zeros(2)}, 1.0))
    assert "learner.worlds begin anew" in caplog.text
    for allowed in ([], [("learner", "keys")]):
        with pytest.raises(StorageError, match="learner./worlds./blows"):
            TrainCheckpoints(tmp_path, anew=Anew(allowed, lambda: now)).latest(now)


@pytest.mark.parametrize("step", [9, 10])
def test_a_step_that_is_not_above_the_last_is_refused(tmp_path: Path, step: int) -> None:
    checkpoints = TrainCheckpoints(tmp_path)
    checkpoints.save(10, _tree())
    with pytest.raises(ConflictError, match="would not follow 10"):
        checkpoints.save(step, _tree())


@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_after_damage_the_one_before_is_used_and_it_says_so(tmp_path: Path, how: str, caplog: Any) -> None:
    checkpoints = TrainCheckpoints(tmp_path)
    checkpoints.save(10, _tree(10))
    checkpoints.save(20, _tree(20))
    _damage(tmp_path / "step-000000000020", how)
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest(_tree())
    assert found is not None and found[0] == 10
    _assert_same(found[1], _tree(10))
    assert "step-000000000020" in caplog.text and "going back" in caplog.text
    # Training goes on from there and reaches the same step again.
    checkpoints.save(20, _tree(20))
    assert checkpoints.steps() == [10, 20]


def test_foreign_and_temporary_directories_are_ignored(tmp_path: Path) -> None:
    checkpoints = TrainCheckpoints(tmp_path)
    checkpoints.save(10, _tree(10))
    for name in ("step-000000000099.tmp-1-abc", "step-5", "notes", "step-000000000050.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    found = checkpoints.latest(_tree())
    assert found is not None and found[0] == 10


@pytest.mark.parametrize(("point", "steps"), [("tree_before_rename:2", [10]), ("tree_after_rename:2", [10, 20])])
def test_a_kill_in_a_save_leaves_whole_checkpoints_only(tmp_path: Path, point: str, steps: list[int]) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from flowrl_core.storage.checkpoints import TrainCheckpoints\n"
        "for s in (10, 20, 30): TrainCheckpoints(Path(sys.argv[1])).save(s, {'a': np.full(9, s)})"
    )
    environment = {**os.environ, "FLOWRL_CRASH_AT": point, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    checkpoints = TrainCheckpoints(tmp_path)
    assert checkpoints.steps() == steps
    found = checkpoints.latest({"a": np.zeros(9, int)})
    assert found is not None and found[0] == steps[-1] and (found[1]["a"] == steps[-1]).all()
    checkpoints.save(40, {"a": np.zeros(9, int)})
    assert all(path.name.startswith("step-") and ".tmp-" not in path.name for path in tmp_path.iterdir())


def test_a_full_disk_stops_a_save_with_nothing_left_behind(tmp_path: Path) -> None:
    checkpoints = TrainCheckpoints(tmp_path / "c")
    checkpoints.save(10, {"a": np.zeros(9, int)})
    # A limit on the size of a file fails as a full disk does, in the middle of a write.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            checkpoints.save(20, {"a": np.random.default_rng(0).normal(size=100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-000000000010"]
    checkpoints.save(20, {"a": np.zeros(9, int)})


def test_thirty_megabytes_are_saved_quickly(tmp_path: Path) -> None:
    tree = {str(i): np.random.default_rng(i).normal(size=(64, 1024)).astype(np.float32) for i in range(110)}
    checkpoints = TrainCheckpoints(tmp_path)
    seconds = []
    for step in (1, 2, 3):
        start = time.perf_counter()
        checkpoints.save(step, tree)
        seconds.append(time.perf_counter() - start)
    # About 0.3 s on a quiet machine; the limit leaves room for a busy one.
    assert min(seconds) < 3.0, seconds


def test_a_version_is_stored_once_and_comes_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    params = {"actor": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    content = versions.put(home, params)
    before = home.version(content).stat().st_ino
    assert versions.put(home, params) == content == content_hash(params)
    assert home.version(content).stat().st_ino == before
    _assert_same(versions.get(home, content), params)


def test_a_damaged_version_is_refused_and_written_again_by_the_next_put(tmp_path: Path) -> None:
    home = Home(tmp_path)
    params = {"kernel": np.arange(6, dtype=np.float32)}
    content = versions.put(home, params)
    _damage(home.version(content), "flipped")
    with pytest.raises(CorruptError):
        versions.get(home, content)
    versions.put(home, params)
    _assert_same(versions.get(home, content), params)


def test_a_version_under_another_name_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    content = versions.put(home, {"kernel": np.arange(6)})
    home.version(content).rename(home.version("0" * 32))
    with pytest.raises(CorruptError, match="do not match its name"):
        versions.get(home, "0" * 32)
    with pytest.raises(CorruptError, match="no readable manifest"):
        versions.get(home, content)
