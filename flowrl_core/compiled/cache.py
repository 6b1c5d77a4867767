"""A learner stored in files by code, versions, device and shapes: made once, then read by every process.

The files are a directory of functions as written by `jax.export`, XLA's compiled programs (JAX's persistent cache) and
worlds for the first episodes. JAX writes its cache without a lock or rename and never repairs a truncated file. So the
directory is built beside its final place, renamed when it is complete, and read-only from then on; file sizes are
compared before use. If two processes start cold at once, a kernel file lock lets one build while the other waits.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from flowrl_core.compiled.fingerprint import fingerprint
from flowrl_core.compiled.functions import read_functions, trace_functions, write_functions
from flowrl_core.envs.worlds import WorldPool
from flowrl_core.learning.functions import Functions
from flowrl_core.learning.learner import Learner, hyperparameters, training_mode
from flowrl_core.learning.shapes import Shapes
from flowrl_core.randomness import jax_stream
from flowrl_core.specs.skill import TrainingSpec
from flowrl_core.storage.atomic import (
    publish_directory,
    remove_directory,
    remove_leftovers,
    temporary_beside,
    write_json,
)
from flowrl_core.storage.ownership import exclusive
from flowrl_core.vocabulary.catalogue import vocabulary

__all__ = ["compilations", "compiled_learner", "exercise", "is_whole", "loading_seconds"]

logger = logging.getLogger(__name__)

_NEVER = 1e9
_XLA, _WORLDS, _SIZES = "xla", "worlds.npz", "sizes.json"
_POOLS = 2
"""Number of worlds stored for the first episodes of runs, as a multiple of the pool's size."""
_REQUESTS, _HITS = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"
_counts = {_REQUESTS: 0, _HITS: 0}

_STEPS = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
_seconds = dict.fromkeys((f"/jax/core/compile/{step}" for step in _STEPS), 0.0)


def _count(event: str, **_: object) -> None:
    if event in _counts:
        _counts[event] += 1


def _add_seconds(event: str, duration_secs: float, **_: object) -> None:
    if event in _seconds:
        _seconds[event] += duration_secs


jax.monitoring.register_event_listener(_count)
jax.monitoring.register_event_duration_secs_listener(_add_seconds)


def compilations() -> int:
    """Return the number of programs this process compiled, not counting those it loaded (from JAX's own events)."""
    return _counts[_REQUESTS] - _counts[_HITS]


def loading_seconds() -> float:
    """Return the seconds this process spent tracing, lowering, and compiling or loading (from JAX's own events)."""
    return sum(_seconds.values())


def compiled_learner(cache: Path, shapes: Shapes) -> Learner:
    """Return the learner of these shapes from the files below `cache`, making them first if they are missing.

    Raises:
        InputError: see `fingerprint`.
        StorageError: the files cannot be made.
    """
    ready = cache / "learners" / fingerprint(shapes)
    ready.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(ready.with_suffix(".lock"), what="the compilation cache", wait=True):
        if not is_whole(ready):
            _build(ready, shapes)
        os.utime(ready)  # housekeeping removes what has long been unused
        try:
            return _load(ready, shapes)
        except (ValueError, zipfile.BadZipFile) as exc:
            logger.warning("%s: %s", ready, exc)
            _build(ready, shapes)
            return _load(ready, shapes)


def _load(ready: Path, shapes: Shapes) -> Learner:
    _use(ready / _XLA, writes=False)
    return _read(ready.resolve(), shapes)


@functools.lru_cache(maxsize=4)
def _read(ready: Path, shapes: Shapes) -> Learner:
    """Return the learner in the directory; cached, so that a process loads it once."""
    with np.load(ready / _WORLDS) as file:
        obs, *state = (file[f"{number:03}"] for number in range(len(file.files)))
    return Learner(shapes, read_functions(ready), WorldPool(obs, tuple(state)))


def _build(ready: Path, shapes: Shapes) -> None:
    logger.info("compiling for %s (once for all skills of these shapes)", shapes)
    remove_leftovers(ready)
    fresh = temporary_beside(ready)
    fresh.mkdir()
    try:
        _use(fresh / _XLA, writes=True)
        write_functions(trace_functions(shapes, hyperparameters(TrainingSpec())), fresh)
        functions = read_functions(fresh)
        worlds = _make_worlds(functions, shapes)
        np.savez(fresh / _WORLDS, **{f"{number:03}": leaf for number, leaf in enumerate(jax.tree.leaves(worlds))})
        exercise(Learner(shapes, functions, worlds))
        sizes = {
            str(path.relative_to(fresh)): path.stat().st_size for path in sorted(fresh.rglob("*")) if path.is_file()
        }
        write_json(fresh / _SIZES, sizes)
        if ready.exists():
            logger.warning("%s was damaged: recreated", ready)
            remove_directory(ready)
        publish_directory(fresh, ready)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def is_whole(ready: Path) -> bool:
    """Whether every file exists with its original size: JAX never repairs a truncated file."""
    try:
        sizes = json.loads((ready / _SIZES).read_text(encoding="utf-8"))
        return all((ready / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _make_worlds(functions: Functions, shapes: Shapes) -> WorldPool:
    """Return worlds for the first episodes of every run: generating them takes longer than reading them."""
    learner = Learner(shapes, functions, WorldPool(np.empty(0), ()))
    pools = [jax.device_get(learner.fill(jax_stream(0, "first worlds", number))) for number in range(_POOLS)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pools)


def _use(directory: Path, *, writes: bool) -> None:
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if writes else _NEVER)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # XLA's own caches put the directory's path into the key: nothing would be found after the rename.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    compilation_cache.reset_cache()


def exercise(learner: Learner) -> None:
    """Run every program once, as a run does, on blank experts and a plan of zeros."""
    from flowrl_core.envs.automaton import blank_plan
    from flowrl_core.learning.evaluation import evaluate

    hyper = hyperparameters(TrainingSpec())
    plan = blank_plan(vocabulary(learner.shapes.env))
    key = jax_stream(0, "exercise")
    state = learner.init(learner.functions.play.zeros("params"), key, key, 1)
    mode = training_mode(0.5)
    state, _, _ = learner.step(state, plan, hyper, mode, 1)
    state, _, _ = learner.step(state, plan, hyper, mode, 1)
    evaluate(learner, state.params, plan, learner.shapes.num_envs, key)
    jax.block_until_ready(state)
