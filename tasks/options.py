"""Named sets of options of flows and tasks. They state all that a person's settings of Prefect could change."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

from flowrl_core.errors import InputError, ModelError

__all__ = ["FLOW", "IDEMPOTENT", "PAID", "RESUMABLE"]


def _is_trouble(task: Any, run: Any, state: Any) -> bool:
    """Whether trying again can help: wrong input stays wrong."""
    try:
        state.result()
    except InputError:
        return False
    except Exception:
        return True
    return False


def _is_passing(task: Any, run: Any, state: Any) -> bool:
    """Whether a language model may answer later."""
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
"""Any flow: an end is an end, and what is to be tried again is the campaign's to decide."""

# Stages cache nothing: each derives what is left to do from the registry and the run's directory.
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
"""Short work that can be repeated on the spot."""

RESUMABLE: dict[str, Any] = {**_STAGE, "retries": 0, "retry_delay_seconds": 0}
"""Long work that goes on from its checkpoint when the run is run again; that is the campaign's to decide."""

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
"""What costs money: done once for each `key` that it is given, and again only where that may help."""
