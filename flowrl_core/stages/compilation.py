"""One set of compiled programs per (code, versions, device, shapes): compiled once, then loaded by every process.

JAX's persistent cache writes its files without lock or rename, and never repairs a truncated one. So a cache is built
whole in a directory of its own, renamed when it is complete, and only read from then on. Two processes that start cold
at once: the kernel's file lock lets one build while the other waits.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import shutil
import tempfile
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from flowrl_core.learning.learner import Learner, Shapes, hyperparameters, make_learner
from flowrl_core.skills.model import digest
from flowrl_core.specs import TrainingSpec
from flowrl_core.storage.ownership import exclusive

__all__ = ["compilations", "compiled_learner"]

logger = logging.getLogger(__name__)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "craftax", "numpy")
_NEVER = 1e9
_REQUESTS, _HITS = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"
_counts = {_REQUESTS: 0, _HITS: 0}


def _count(event: str, **_: object) -> None:
    if event in _counts:
        _counts[event] += 1


jax.monitoring.register_event_listener(_count)


def compilations() -> int:
    """How many programs this process compiled, not counting those it loaded (JAX's own events)."""
    return _counts[_REQUESTS] - _counts[_HITS]


def compiled_learner(cache: Path, shapes: Shapes) -> Learner:
    """The learner of these shapes, its programs loaded from the cache below `cache`, which is built first if it is
    not there.
    """
    ready = cache / "xla" / _fingerprint(shapes)
    if not ready.is_dir():
        ready.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(ready.with_suffix(".lock"), what="the compilation cache", wait=True):
            if not ready.is_dir():
                _build(ready, shapes)
    _use(ready, writes=False)
    return make_learner(shapes)


def _build(ready: Path, shapes: Shapes) -> None:
    logger.info("compiling for %s (once for all skills of these shapes)", shapes)
    fresh = Path(tempfile.mkdtemp(prefix=".building-", dir=ready.parent))
    try:
        _use(fresh, writes=True)
        _exercise(make_learner(shapes))
        fresh.rename(ready)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _use(directory: Path, *, writes: bool) -> None:
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if writes else _NEVER)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # XLA's own caches put the directory's path into the key: after the rename nothing would be found.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    compilation_cache.reset_cache()


def _exercise(learner: Learner) -> None:
    """Run every program once, on blank experts and a plan of zeros, as a run does."""
    from flowrl_core.envs.automaton import blank_plan
    from flowrl_core.learning.evaluation import evaluate
    from flowrl_core.networks.policy_value import initial_params
    from flowrl_core.skills.experts import stack_experts

    shapes, adapter = learner.shapes, learner.adapter
    hyper = hyperparameters(TrainingSpec())
    plan = blank_plan(adapter.vocabulary)
    expert = initial_params(np.random.default_rng(0), learner.observation_size, shapes.width, adapter.num_actions)
    params = stack_experts([expert], shapes.num_experts)
    key = jax.random.PRNGKey(0)
    state = learner.init(params, hyper, key, key, 1)
    state, _, _ = learner.step(state, plan, hyper, 0.5, 1)
    state, _, _ = learner.step(state, plan, hyper, 0.5, 1)
    evaluate(learner, state.params, plan, shapes.num_envs, key)
    jax.block_until_ready(state)


def _fingerprint(shapes: Shapes) -> str:
    device = jax.devices()[0]
    return digest(
        {
            "shapes": asdict(shapes),
            "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "code": _code(),
            "device": [device.platform, device.device_kind, platform.machine(), _cpu()],
        }
    )


def _code() -> str:
    """The hash of the sources that end up in compiled programs."""
    root = Path(__file__).parents[1]
    files = sorted(p for name in ("envs", "learning", "networks", "programs") for p in (root / name).glob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _cpu() -> str:
    """The processor's model and abilities: code compiled for another one may not run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    lines = {line for line in text.splitlines() if line.startswith(("model name", "flags", "Features"))}
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()
