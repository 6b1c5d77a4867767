"""What affects a run's numbers besides its configuration and the code: options of JAX, variables of XLA and CUDA.

"Same config and seed, same machine: same numbers" must hold even if a user has set a variable for another program. So
FlowRL decides on every option of the installed JAX. Most are pinned: whatever the environment says, FlowRL's programs
are traced, compiled and run with the values below, which are JAX's own defaults. The rest do not affect numbers.
Settings that the compilers and libraries read themselves cannot be pinned; they are part of a compiled learner's
fingerprint, as is an option that only another version of JAX has.

Nothing here imports JAX before `pin` is called.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from flowrl_core.errors import InputError

__all__ = [
    "COMPILER_VARIABLES",
    "LEFT",
    "PINNED",
    "compiler_settings",
    "drop_ignored",
    "left_variables",
    "pin",
    "pinned_by",
    "undecided",
]

PINNED: Mapping[str, Mapping[str, object]] = {
    "what a number is, how numbers combine, and how random ones are drawn": {
        "jax_default_matmul_precision": None,
        "jax_default_prng_impl": "threefry2x32",
        "jax_enable_custom_prng": False,
        "jax_enable_x64": False,
        "jax_explicit_x64_dtypes": "warn",
        "jax_high_dynamic_range_gumbel": False,
        "jax_legacy_prng_key": "allow",
        "jax_numpy_dtype_promotion": "standard",
        "jax_numpy_rank_promotion": "allow",
        "jax_random_seed_offset": 0,
        "jax_softmax_custom_jvp": False,
        "jax_threefry_gpu_kernel_lowering": False,
        "jax_threefry_partitionable": True,
    },
    "checks that refuse what compiled programs do, or make other programs of them": {
        "check_vma": False,
        "jax_array_garbage_collection_guard": None,
        "jax_check_static_indices": False,
        "jax_check_tracer_leaks": False,
        "jax_debug_infs": False,
        "jax_debug_key_reuse": False,
        "jax_debug_nans": False,
        "jax_disable_bwd_checks": False,
        "jax_disable_jit": False,
        "jax_disable_vmap_shmap_error": False,
        "jax_disallow_mesh_context_manager": False,
        "jax_enable_checks": False,
        "jax_error_checking_behavior_divide": "ignore",
        "jax_error_checking_behavior_nan": "ignore",
        "jax_error_checking_behavior_oob": "ignore",
        "jax_experimental_unsafe_xla_runtime_errors": False,
        "jax_mutable_array_checks": True,
        "jax_no_execution": False,
        "jax_no_tracing": False,
        "jax_pallas_enable_debug_checks": False,
        "jax_pallas_poison_buffers": False,
        "jax_thread_guard": False,
        # The first option sets the other three.
        "jax_transfer_guard": None,
        "jax_transfer_guard_device_to_device": None,
        "jax_transfer_guard_device_to_host": None,
        "jax_transfer_guard_host_to_device": None,
    },
    "how programs are traced, lowered, compiled and written to files": {
        "eager_constant_folding": False,
        "jax2tf_associative_scan_reductions": False,
        "jax2tf_default_native_serialization": True,
        "jax_allow_f16_reductions": True,
        "jax_auto_pcast": True,
        "jax_bcoo_cusparse_lowering": False,
        "jax_compiler_enable_remat_pass": True,
        "jax_custom_vjp3": False,
        "jax_disable_most_optimizations": False,
        "jax_embedded_constants_max_bytes": 32,
        "jax_enable_pgle": False,
        "jax_exec_time_optimization_effort": 0.0,
        "jax_export_calling_convention_version": 10,
        "jax_export_ignore_forward_compatibility": False,
        "jax_memory_fitting_effort": 0.0,
        "jax_memory_fitting_level": "O2",
        "jax_mosaic_allow_hlo": False,
        "jax_optimization_level": "UNKNOWN",
        "jax_pallas_use_mosaic_gpu": True,
        "jax_pgle_aggregation_percentile": 90,
        "jax_pgle_profiling_runs": 3,
        "jax_ragged_dot_use_gpu_pallas_triton_lowering": False,
        "jax_ragged_dot_use_ragged_dot_instruction": True,
        "jax_refs_to_pins": False,
        "jax_remat3": False,
        "jax_remove_size_one_mesh_axis_from_type": False,
        "jax_scan3": False,
        "jax_send_traceback_to_runtime": "off",
        "jax_serialization_version": 0,
        "jax_use_direct_linearize": True,
        "jax_use_emit_pipeline_primitive": False,
        "jax_use_magma": "auto",
        "jax_use_shardy_partitioner": True,
        "jax_use_simplified_jaxpr_constants": False,
        "jax_xla_profile_version": 0,
    },
    "JAX's cache of compiled programs, of which each compiled learner has its own": {
        "jax_compilation_cache_check_contents": False,
        "jax_compilation_cache_expect_pgle": False,
        "jax_compilation_cache_include_metadata_in_key": False,
        "jax_compilation_cache_max_size": -1,
        "jax_enable_compilation_cache": True,
        "jax_raise_persistent_cache_errors": False,
        "jax_remove_custom_partitioning_ptr_from_cache_key": False,
        "jax_share_binary_between_hosts": False,
        "jax_share_binary_between_hosts_timeout_ms": 1_200_000,
    },
    "devices and processes: a run is one process, on the one device of its slot": {
        "jax_backend_target": "",
        "jax_cpu_collectives_implementation": "gloo",
        "jax_cpu_enable_async_dispatch": True,
        "jax_cpu_get_global_topology_timeout_minutes": 5,
        "jax_cpu_get_local_topology_timeout_minutes": 2,
        "jax_cross_host_transfer_socket_address": "",
        "jax_cross_host_transfer_timeout_seconds": None,
        "jax_cross_host_transfer_transfer_size": None,
        "jax_cross_host_transport_addresses": "",
        "jax_cuda_visible_devices": "all",
        "jax_default_device": None,
        "jax_enable_preemption_service": True,
        "jax_enable_recoverability": False,
        "jax_force_dcn_cross_host_transfers": False,
        "jax_mock_gpu_topology": "",
        "jax_num_cpu_devices": -1,
        "jax_oneapi_visible_devices": "all",
        "jax_pjrt_client_create_options": None,
        "jax_rocm_visible_devices": "all",
        "jax_sort_devices_by_process_index": True,
        "jax_xla_backend": "",
        "mock_num_gpu_processes": 0,
    },
}
"""Reason -> option -> its value in every process that computes. Another value would change numbers or break a run."""

_CACHE = "ignored: set for each directory of compiled programs"
LEFT: Mapping[str, tuple[str, ...]] = {
    "chooses the kind of device": ("jax_platform_name", "jax_platforms"),
    _CACHE: (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_enable_xla_caches",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ),
    "what JAX logs, warns of, dumps, and how it shows errors": (
        "jax_captured_constants_report_frames",
        "jax_captured_constants_warn_bytes",
        "jax_check_proxy_envs",
        "jax_compiler_detailed_logging_min_ops",
        "jax_debug_leaked_clients_on_clear_backends",
        "jax_debug_log_modules",
        "jax_distributed_debug",
        "jax_dump_ir_modes",
        "jax_dump_ir_to",
        "jax_explain_cache_misses",
        "jax_hlo_source_file_canonicalization_regex",
        "jax_include_debug_info_in_dumps",
        "jax_include_full_tracebacks_in_locations",
        "jax_log_checkpoint_residuals",
        "jax_log_compiles",
        "jax_logging_level",
        "jax_pallas_verbose_errors",
        "jax_pprint_use_color",
        "jax_source_url_schema",
        "jax_traceback_filtering",
        "jax_traceback_in_locations_limit",
        "jax_tracer_error_num_traceback_frames",
    ),
}
"""Effect -> options that a user may set: they change no number and no compiled program."""

COMPILER_VARIABLES = (
    "XLA_FLAGS",
    # JAX includes it in its cache keys on every device.
    "LIBTPU_INIT_ARGS",
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
)
"""Variables that XLA and CUDA's libraries read themselves and that may change numbers: part of the fingerprint."""

_THREADS = dict.fromkeys(
    ("NPROC", "PJRT_NPROC"),
    "how many threads compute: as many as the slot has cores. Sums of another number of parts are other numbers",
)
_OF_PROGRAMS = "how networks become programs: as flax does by default"
_OF_LIBRARIES = "how XLA's libraries compute: as they do by default"
_FAMILIES = {"FLAX_": _OF_PROGRAMS, "NNX_": _OF_PROGRAMS, "DNNL_": _OF_LIBRARIES, "ONEDNN_": _OF_LIBRARIES}
"""Prefixes of variable names that are not options of JAX."""
_DEVICES = {"PJRT_NAMES_AND_LIBRARY_PATHS": "which devices there are: those of JAX itself, and of its packages"}
_VALUES = {option: value for options in PINNED.values() for option, value in options.items()}
_DECIDED = frozenset(_VALUES) | {option for options in LEFT.values() for option in options}
# JAX reads this option from a misspelled variable: a letter is missing.
_MISSPELLED = {"jax_export_ignore_forward_compatibility": "JAX_EXPORT_IGNORE_FORWARD_COMPATIBILIY"}
_OPTIONS = {_MISSPELLED.get(option, option.upper()): why for why, options in PINNED.items() for option in options}
_OF_CACHE = {option.upper() for option in LEFT[_CACHE]}


def pinned_by(variable: str) -> str | None:
    """Return why FlowRL ignores the variable; None if it does not."""
    return _OPTIONS.get(variable) or _unoptional(variable)


def drop_ignored(environment: MutableMapping[str, str]) -> None:
    """Remove the variables that FlowRL ignores: JAX and flax fail to import if they cannot parse a value."""
    for name in [name for name in environment if pinned_by(name) or name in _OF_CACHE]:
        del environment[name]


def left_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the set variables of options left to JAX; an empty value counts as set, since JAX may reject it."""
    return sorted(name for options in LEFT.values() for name in map(str.upper, options) if name in environment)


def pin() -> None:
    """Set every pinned option, for all threads, and let XLA size its thread pool by the cores of this process.

    Call it before anything is traced or computed.

    Raises:
        InputError: an option keeps another value: a `with` block around the caller holds it, or JAX has already started
            and can no longer change it.
    """
    import jax

    for name in filter(_unoptional, list(os.environ)):
        del os.environ[name]
    for option, value in _deviations().items():
        try:
            jax.config.update(option, value)
        except RuntimeError as exc:
            raise _kept(option) from exc
    for option in _deviations():
        raise _kept(option)


def undecided() -> dict[str, str]:
    """Return the options of the installed JAX that FlowRL does not decide on, with their values."""
    import jax

    return {option: str(value) for option, value in sorted(jax.config.values.items()) if option not in _DECIDED}


def compiler_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that XLA and CUDA's libraries read themselves, with their values and those of flag files."""
    found = {name: environment[name].split() for name in COMPILER_VARIABLES if environment.get(name, "").strip()}
    flags = found.get("XLA_FLAGS", ["-"])
    if not flags[0].startswith("-"):
        try:
            found["XLA_FLAGS"] += Path(flags[0]).read_text(encoding="utf-8", errors="replace").split()
        except OSError as exc:
            remedy = "Correct it, or unset it: flags begin with `--`; anything else names a file of flags"
            raise InputError("XLA_FLAGS", f"{flags[0]} cannot be read ({exc.strerror})", remedy) from exc
    return {name: " ".join(words) for name, words in found.items()}


def _unoptional(variable: str) -> str | None:
    """Return why FlowRL ignores a variable that is no option of JAX and is read on use; None if it does not."""
    family = next((prefix for prefix in _FAMILIES if variable.startswith(prefix)), "")
    return _THREADS.get(variable) or _DEVICES.get(variable) or _FAMILIES.get(family)


def _deviations() -> dict[str, object]:
    """Return option -> pinned value for each option with another value. Other versions of JAX may lack some."""
    import jax

    found = jax.config.values
    return {option: value for option, value in _VALUES.items() if option in found and _plain(found[option]) != value}


def _plain(value: object) -> object:
    return value.name.lower() if isinstance(value, enum.Enum) else value


def _kept(option: str) -> InputError:
    remedy = "Call FlowRL outside such a `with` block, and before JAX computes anything else in this process"
    return InputError(option, "this process has set it for other work, which would change FlowRL's numbers", remedy)
