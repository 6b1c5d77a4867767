"""Lost runs: marked as executing on this machine although no process executes them and their worker has died.

While a run's worker lives, Prefect itself notices how the run's process ends. Runs of dead workers are checked whenever
FlowRL is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Crashed

from tasks.orchestration.runs.submission import UNHEARD_S, age, find_runs, read_runs
from tasks.orchestration.runs.tags import FLOWRL, is_from_here, is_of_other_registry, registry_tag

__all__ = ["Living", "declare_lost", "living"]

_EXECUTING = ("PENDING", "RUNNING", "CANCELLING")
# Matches every version's path of the module: a worker may outlive an upgrade.
_WORKERS = re.compile(r"tasks\.orchestration\.([a-z]+\.)?workers")
_PID = re.compile(r":(\d+)$")
_PAUSE_S = 2.0


@dataclass(frozen=True)
class Living:
    """The runs and workers alive on this machine, as far as this user can see.

    Attributes:
        runs: ids of the flow runs that have a process.
        workers: process number -> start time of FlowRL's workers, in seconds since the epoch.
    """

    runs: frozenset[str]
    workers: Mapping[int, float]


def living() -> Living:
    """Return the runs and workers alive on this machine now."""
    runs, workers = set(), {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(_WORKERS.search(argument) for argument in process.cmdline()):
                workers[process.pid] = process.create_time()
            runs.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return Living(frozenset(runs - {""}), workers)


async def declare_lost(client: PrefectClient, *, registry: str | None, own: bool) -> list[UUID]:
    """End the runs of this machine whose worker and process are both dead; return their ids.

    Each is checked twice, since a run may begin or end in between.

    Args:
        registry: uuid of the home's registry, if it has one. Runs of other registries and machines are left alone: from
            here it is unknown whether they live.
        own: whether the server is the home's own, so that a run without a registry belongs to the home too.
    """
    executing = await find_runs(client, [FLOWRL], states=_EXECUTING)
    suspects = _lost([run for run in executing if _is_ours(run, registry, own=own)])
    if not suspects:
        return []
    await asyncio.sleep(_PAUSE_S)
    found = await read_runs(client, [str(run.id) for run in suspects])
    before = {run.id: run.state_id for run in suspects}
    lost = _lost([run for run in found.values() if run.state_id == before[run.id]])
    for run in lost:
        message = "its process is gone"
        is_cancelling = run.state is not None and run.state.is_cancelling()
        end: State[Any] = Cancelled(message=message) if is_cancelling else Crashed(message=message)
        await client.set_flow_run_state(run.id, end, force=True)
    return [run.id for run in lost]


def _is_ours(run: FlowRun, registry: str | None, *, own: bool) -> bool:
    if is_of_other_registry(run.tags, registry):
        return False
    if not own and (registry is None or registry_tag(registry) not in run.tags):
        return False
    # A run without a worker's name may be on any machine of the server; on the home's own server it is on this machine.
    worker = _worker(run)
    return is_from_here(worker) if worker else own


def _lost(runs: list[FlowRun]) -> list[FlowRun]:
    now = living() if runs else None
    return [run for run in runs if now is not None and _is_lost(run, now)]


def _is_lost(run: FlowRun, now: Living) -> bool:
    if run.state is None or str(run.id) in now.runs:
        return False
    since = run.state.timestamp.timestamp()
    number = _PID.search(_worker(run))
    began = now.workers.get(int(number[1])) if number else None
    # The process number may now belong to a later worker: in a container numbers are reused.
    if began is not None and began < since:
        return False
    # A pending run may have been taken (again) by a worker that has not recorded its name yet.
    may_begin = run.state.is_pending() and any(other < since for other in now.workers.values())
    return not may_begin or age(run.state) > UNHEARD_S


def _worker(run: FlowRun) -> str:
    return str(run.labels.get("prefect.worker.name", ""))
