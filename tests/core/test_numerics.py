"""What a person has set for other programs changes no number here, breaks no run, and costs no compilation twice."""

import json
import os
import subprocess
import sys

import jax
import pytest
from corridor_runs import TRAINING

from flowrl_core.compiled import numerics
from flowrl_core.compiled.numerics import PINNED, compiler_settings, drop_ignored, pin, pinned_by, undecided
from flowrl_core.errors import InputError
from flowrl_core.learning.shapes import shapes_of

NUMBERS = """
import json, sys
from hashlib import sha256
from pathlib import Path
import jax, numpy as np
from corridor_runs import KNOWLEDGE, TRAINING
from flowrl_core.envs.automaton import lower_plan
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.learning.learner import hyperparameters, training_mode
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Plan, Step
from flowrl_core.compiled.cache import compilations, compiled_learner, fingerprint
shapes = shapes_of("corridor", TRAINING, 3)
learner = compiled_learner(Path(sys.argv[1]), shapes)
plan = lower_plan(Plan("dig_a", (Step("dig_a", 1),)), KNOWLEDGE.skills, {"dig_a": 0}, CORRIDOR, episode_limit=40)
state = learner.init(learner.functions.play.zeros("params"), jax_stream(1), jax_stream(2), 1)
for _ in range(3):
    state, _, _ = learner.step(state, plan, hyperparameters(TRAINING), training_mode(0.5), 1)
trees = {"worlds": learner.worlds, "state": state}
hashes = {
    name: sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()
    for name, tree in trees.items()
}
print(json.dumps({"numbers": hashes, "compiled": compilations(), "fingerprint": fingerprint(shapes)}))
"""

HOSTILE = {
    # Other numbers.
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
    "NPROC": "16",
    # Failures with nothing compiled yet.
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_NO_TRACING": "1",
    # Failures with everything compiled.
    "JAX_DISABLE_JIT": "1",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_NO_EXECUTION": "1",
    # Compiled again and again.
    "JAX_DEBUG_NANS": "1",
    "JAX_CHECK_TRACER_LEAKS": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    "JAX_COMPILATION_CACHE_MAX_SIZE": "10",
    "JAX_COMPILATION_CACHE_DIR": "/nowhere/at/all",
    "JAX_COMPILATION_CACHE_INCLUDE_METADATA_IN_KEY": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "1000000",
    "JAX_OPTIMIZATION_LEVEL": "O0",
    "JAX_NUM_CPU_DEVICES": "3",
    # Other networks, or none, and other devices.
    "FLAX_FIX_RNG_SEPARATOR": "1",
    "FLAX_PROFILE": "maybe",
    "NNX_GRAPH_MODE": "maybe",
    "PJRT_NAMES_AND_LIBRARY_PATHS": "mine:/nowhere.so",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "OMP_NUM_THREADS": "abc",
    # Only other words.
    "JAX_TRACEBACK_FILTERING": "off",
    "JAX_EXPLAIN_CACHE_MISSES": "1",
}
FLAGS = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}
"""XLA's own default: other programs by name, the same numbers."""


def numbers(cache, **variables):
    """What a process of its own computes, with these variables set."""
    tests = os.path.dirname(__file__)
    paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", NUMBERS, str(cache)],
        env={**os.environ, "PYTHONPATH": paths, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def plain(basics):
    return numbers(basics.cache)


@pytest.mark.long
def test_variables_for_other_programs_change_nothing_where_all_is_compiled(basics, plain):
    assert numbers(basics.cache, **HOSTILE) == plain
    assert plain["compiled"] == 0


@pytest.mark.long
def test_they_change_nothing_where_nothing_is_compiled_and_flags_of_xla_compile_once(plain, tmp_path):
    first = numbers(tmp_path, **HOSTILE, **FLAGS)
    second = numbers(tmp_path, **FLAGS)
    assert first["compiled"] > 0 and second["compiled"] == 0
    assert first["numbers"] == second["numbers"] == plain["numbers"]
    assert first["fingerprint"] == second["fingerprint"] != plain["fingerprint"]


def test_every_option_of_jax_is_decided_once():
    pinned = [option for options in PINNED.values() for option in options]
    left = [option for options in numerics.LEFT.values() for option in options]
    assert len({*pinned, *left}) == len(pinned) + len(left)
    assert {*pinned, *left} == set(jax.config.values), "decide of a new option, and forget one that is gone"
    assert undecided() == {}


@pytest.fixture
def restored():
    before = dict(jax.config.values)
    yield
    for option, value in before.items():
        if jax.config.values[option] != value:
            jax.config.update(option, value)


OTHERS = {bool: lambda value: not value, int: lambda value: value + 1, float: lambda value: value + 1.0}
CHOICES = {
    "jax_array_garbage_collection_guard": "log",
    "jax_default_matmul_precision": "highest",
    "jax_default_prng_impl": "rbg",
    "jax_explicit_x64_dtypes": "error",
    "jax_legacy_prng_key": "error",
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow",
}


# What can be set only before JAX has started, which it has where other tests came first.
EARLY = {
    "jax_cpu_get_global_topology_timeout_minutes",
    "jax_cpu_get_local_topology_timeout_minutes",
    "jax_num_cpu_devices",
}
CAN_CHANGE = {option for options in PINNED.values() for option in options} - EARLY


@pytest.mark.parametrize("option", sorted(CAN_CHANGE))
def test_a_pinned_option_is_put_right(option, restored):
    pin()
    value = {name: value for options in PINNED.values() for name, value in options.items()}[option]
    other = CHOICES.get(option) or OTHERS.get(type(value), lambda value: value)(value)
    jax.config.update(option, other)
    pin()
    assert numerics._plain(jax.config.values[option]) == value


def test_an_option_that_the_caller_holds_is_refused():
    with jax.debug_nans(True), pytest.raises(InputError, match="jax_debug_nans"):
        pin()


def test_an_option_of_another_jax_is_another_fingerprint(monkeypatch, learner):
    from flowrl_core.compiled.fingerprint import fingerprint

    shapes = shapes_of("corridor", TRAINING, 3)
    before = fingerprint(shapes)
    monkeypatch.setattr(numerics, "_DECIDED", numerics._DECIDED - {"jax_log_compiles"})
    assert fingerprint(shapes) != before


def test_flags_in_a_file_count_by_what_it_says(tmp_path):
    file = tmp_path / "flags"
    seen = [compiler_settings({}), compiler_settings({"XLA_FLAGS": "--xla_a=1  --xla_b=2"})]
    assert seen[1] == compiler_settings({"XLA_FLAGS": " --xla_a=1 --xla_b=2 ", "LIBTPU_INIT_ARGS": ""})
    for text in ("--xla_a=1", "--xla_a=2"):
        file.write_text(text)
        seen.append(compiler_settings({"XLA_FLAGS": str(file)}))
    assert all(seen.count(one) == 1 for one in seen)
    with pytest.raises(InputError, match="XLA_FLAGS"):
        compiler_settings({"XLA_FLAGS": str(tmp_path / "none")})


def test_what_jax_could_not_read_is_dropped_for_what_is_started():
    ignored = {"JAX_ENABLE_X64": "maybe", "PJRT_NPROC": "7", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "long"}
    ignored |= {"FLAX_OF_TOMORROW": "maybe", "NNX_GRAPH_MODE": "maybe", "PJRT_NAMES_AND_LIBRARY_PATHS": "nonsense"}
    environment = {**ignored, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_a=1"}
    drop_ignored(environment)
    assert environment == {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_a=1"}
    assert pinned_by("JAX_ENABLE_X64") and not pinned_by("JAX_PLATFORMS")
