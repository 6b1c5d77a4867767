"""Named option sets of flows and tasks. They set every option that a user's Prefect settings could change."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

from flowrl_core.errors import InputError, ModelError

__all__ = ["FLOW", "IDEMPOTENT", "PAID", "RESUMABLE"]


def _is_trouble(task: Any, run: Any, state: Any) -> bool:
    """Whether a retry can help: wrong input stays wrong."""
    try:
        state.result()
    except InputError:
        return False
    except Exception:
        return True
    return False


def _is_passing(task: Any, run: Any, state: Any) -> bool:
    """Whether the failure of a language model is temporary."""
    try:
        state.result()
    except ModelError as exc:
        return exc.is_passing
    except Exception:
        return False
    return False


def _by_key(context: Any, parameters: dict[str, Any]) -> str:
    return str(parameters["key"])


FLOW: dict[str, Any] = {
    "retries": 0,
    "retry_delay_seconds": 0,
    "persist_result": False,
    "result_serializer": "json",
    "log_prints": False,
}
"""For any flow: no retries, since the campaign decides what to try again."""

# Stages cache nothing: each derives the remaining work from the registry and the run's directory.
_STAGE: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "result_serializer": "json",
    "refresh_cache": False,
    "log_prints": False,
}

IDEMPOTENT: dict[str, Any] = {
    **_STAGE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_condition_fn": _is_trouble,
}
"""For short work that can be repeated at once."""

RESUMABLE: dict[str, Any] = {**_STAGE, "retries": 0, "retry_delay_seconds": 0}
"""For long work that resumes from its checkpoint when the run is run again, as the campaign decides."""

PAID: dict[str, Any] = {
    "cache_key_fn": _by_key,
    "persist_result": True,
    "result_serializer": "json",
    "refresh_cache": False,
    "log_prints": False,
    "retries": 2,
    "retry_delay_seconds": [10, 60],
    "retry_condition_fn": _is_passing,
}
"""For work that costs money: done once for each `key`, and retried only if the failure is temporary."""
