"""Whether the attempts that the registry lists as submitted are still being executed.

The process that ends a run records that in the registry. After a kill no process is left to do so: then the local
processes, and the server, know more than the registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowrl_cli.server.configured import ask, configured, credentials
from flowrl_cli.server.fetching import Answer, NoAnswerError
from flowrl_cli.server.record import Record, may_execute
from flowrl_core.errors import InputError, StorageError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.runs import Attempt
from tasks.orchestration.runs.tags import CAMPAIGN_FLOW, campaign_tags

__all__ = ["Execution", "executions"]

_ANSWER_S = 3.0
_FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
_LIVE = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
_AGAIN = "the campaign's next start resumes it"


@dataclass(frozen=True)
class Execution:
    """Whether an outstanding attempt is still being executed.

    Attributes:
        is_over: nothing executes it, and nothing will until its campaign is started again.
        why: why it is over, or why that is unknown; empty if it continues.
    """

    is_over: bool
    why: str


def executions(
    home: Home, registry: str, attempts: Mapping[str, Attempt], *, asks_server: bool
) -> dict[str, Execution]:
    """Return the execution of each attempt, by the same names.

    Args:
        registry: uuid of the registry.
        asks_server: ask the server, too, besides checking local processes. Takes up to three seconds for each campaign
            and attempt.
    """
    if not may_execute(home):
        return dict.fromkeys(attempts, Execution(True, f"its server and workers have ended; {_AGAIN}"))
    if not asks_server:
        return dict.fromkeys(attempts, Execution(False, ""))
    try:
        server = _server(home)
        return _asked(*server, registry, attempts) if server else dict.fromkeys(attempts, Execution(False, ""))
    except (InputError, StorageError, LookupError, NoAnswerError, ValueError) as exc:
        return dict.fromkeys(attempts, Execution(False, f"whether it is still running is unknown: {exc}"))


def _server(home: Home) -> tuple[str, Mapping[str, str]] | None:
    """Return the URL and the credentials of the server that has the home's runs; None if nothing here names one.

    Raises:
        InputError: a password is missing, or settings cannot be read.
        StorageError: the record of what was started here cannot be read.
        LookupError: the server cannot be reached from here.
    """
    from flowrl_cli.server.connection import secrets_of

    if found := configured():
        return found.url, credentials()
    record = Record.load(home) or Record.load_workers(home)
    if record is None:
        return None
    if not record.is_here and record.address.is_loopback:
        raise LookupError(f"it was started on another machine, {record.machine_name}")
    return record.server.url, secrets_of(record.server)


def _asked(
    url: str, connection: Mapping[str, str], registry: str, attempts: Mapping[str, Attempt]
) -> dict[str, Execution]:
    led = {name for name in {one.campaign for one in attempts.values()} if _is_led(url, connection, registry, name)}
    return {
        name: Execution(False, "") if one.campaign in led else _of_run(url, connection, one.flow_run_id)
        for name, one in attempts.items()
    }


def _is_led(url: str, connection: Mapping[str, str], registry: str, campaign: str) -> bool:
    """Whether a run of the campaign is live; it restarts attempts that broke off."""
    wanted = {
        "flows": {"name": {"any_": [CAMPAIGN_FLOW]}},
        "flow_runs": {"tags": {"all_": campaign_tags(registry, campaign)}, "state": {"type": {"any_": _LIVE}}},
    }
    return bool(_read(url, ask(f"{url}/flow_runs/count", connection, seconds=_ANSWER_S, body=wanted)))


def _of_run(url: str, connection: Mapping[str, str], run: str | None) -> Execution:
    if run is None:
        return Execution(True, f"it was never submitted; {_AGAIN}")
    answer = ask(f"{url}/flow_runs/{run}", connection, seconds=_ANSWER_S)
    if answer.status == 404:
        return Execution(True, f"Prefect has no record of its run; {_AGAIN}")
    state: Any = _read(url, answer)["state"] or {}
    if state.get("type") not in _FINAL:
        return Execution(False, "")
    said = ": ".join(str(state[name]) for name in ("name", "message") if state.get(name))
    return Execution(True, f"its run ended as {said}; {_AGAIN}")


def _read(url: str, answer: Answer) -> Any:
    """Return the server's answer, decoded.

    Raises:
        LookupError: the answer is not what was expected.
    """
    if answer.status != 200:
        raise LookupError(f"{url} answers HTTP {answer.status}")
    return json.loads(answer.body)
