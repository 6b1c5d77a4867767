"""Named sets of task options."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

from flowrl_core.errors import InputError

__all__ = ["IDEMPOTENT", "RESUMABLE"]


def _is_trouble(task: Any, run: Any, state: Any) -> bool:
    """Whether trying again can help: wrong input stays wrong."""
    try:
        state.result()
    except InputError:
        return False
    except Exception:
        return True
    return False


# Nothing is cached: each stage derives what is left to do from the registry and the run's directory.

IDEMPOTENT: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_condition_fn": _is_trouble,
}
"""Short work that can be repeated on the spot."""

RESUMABLE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""Long work that goes on from its checkpoint when the run is run again; that is the campaign's to decide."""
