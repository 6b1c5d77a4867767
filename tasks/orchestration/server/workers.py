"""FlowRL's workers: one process that serves the given pools.

    python -P .../flowrl_core/installation.py tasks.orchestration.server.workers [POOL ...]

It starts two seconds faster than `prefect worker start`, whose command line imports more. From the gpu pool it takes no
more runs than this machine has free slots, so that other machines' workers get the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import anyio
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from flowrl_core.errors import ServiceError
from flowrl_core.installation import ROOT, command
from flowrl_core.signals import restore
from tasks.orchestration.devices.slots import free_slots, survey_here
from tasks.orchestration.runs.tags import worker_name
from tasks.orchestration.server import lasting
from tasks.orchestration.server.bootstrap import POOLS
from tasks.orchestration.server.deployments import entrypoint_here

__all__ = ["InstalledWorker", "SlotWorker", "main", "serve"]

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_MOST_ENDS = 5
_HEALTHY_S = 300.0
"""After serving this long, a worker's end has a new cause: earlier ends no longer count."""
_PAUSE_S = 1.0
_LONGEST_WORDS = 300
_EARLIER_ENGINE = " -m tasks.orchestration.engine"
"""The end of the command that an earlier version wrote into its deployments. A worker may take a run of such a
deployment before `flowrl up` has renewed it, and on other servers they are not renewed.
"""


async def serve(pools: Sequence[str] = POOLS) -> None:
    """Serve the pools until SIGTERM, SIGINT or SIGHUP; wait for each pool until it exists.

    Raises:
        ServiceError: in an exception group: the worker of a pool ended again and again.
    """
    me = asyncio.current_task()
    assert me is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    async with anyio.create_task_group() as group:
        for pool in pools:
            group.start_soon(_serve, pool)


class _Job(ProcessJobConfiguration):
    """How a run is started: FlowRL's by this installation, any other as Prefect does it."""

    def prepare_for_flow_run(
        self, flow_run: FlowRun, deployment: DeploymentResponse | None = None, *rest: Any, **options: Any
    ) -> None:
        """Complete the command and the environment."""
        entrypoint = entrypoint_here(deployment) if deployment is not None else None
        if entrypoint and (self.command is None or self.command.endswith(_EARLIER_ENGINE)):
            # Without a command Prefect starts two interpreters for a run.
            self.command = shlex.join(command("tasks.orchestration.runs.engine"))
            self.working_dir = ROOT
            # With the flow's entry point, the engine need not ask the server and run the pull steps to find it.
            # One that the deployment's job names stands, unless its file has moved since.
            named = self.env.get("PREFECT__FLOW_ENTRYPOINT") or ""
            if not (ROOT / named.rpartition(":")[0]).is_file():
                self.env["PREFECT__FLOW_ENTRYPOINT"] = entrypoint
        super().prepare_for_flow_run(flow_run, deployment, *rest, **options)


class InstalledWorker(ProcessWorker):
    """A process worker that runs FlowRL's deployments with this installation and interpreter."""

    job_configuration = _Job

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "flowrl"  # the base class's key would replace it for all of Prefect


class SlotWorker(InstalledWorker):
    """A worker that requests only as many runs as there are free slots."""

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "flowrl-slots"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        survey = survey_here()
        self._slots = len(survey.slots)
        for remark in survey.remarks:
            logger.warning("%s", remark)
        self._executing = 0

    async def run(self, *args: Any, **options: Any) -> ProcessWorkerResult:
        """Run a flow run in its own process, and count it meanwhile."""
        self._executing += 1
        try:
            return await super().run(*args, **options)
        finally:
            self._executing -= 1

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        room = self._slots - self._executing - len(self._submitting_flow_run_ids)
        if room < 1:
            return []
        found = await super()._get_scheduled_flow_runs()
        wanted = [one for one in found if one.flow_run.id not in self._submitting_flow_run_ids]
        # Runs of other users, and those of a dead worker, hold slots too.
        return wanted[: min(room, free_slots())] if wanted else []


async def _serve(pool: str) -> None:
    """Serve one pool, restarting Prefect's worker after an error (such as a pool that is gone: another database).

    Raises:
        ServiceError: the worker ended at once, several times, despite growing pauses in between.
    """
    ends = 0
    while True:
        await _until_there(pool)
        began, problem = time.monotonic(), "no reason was given"
        try:
            await _make(pool).start(printer=lambda *text: None)
        except Exception as exc:
            problem = _root(exc)
            logger.exception("the worker of the pool %s has ended", pool)
        ends = ends + 1 if time.monotonic() - began < _HEALTHY_S else 1
        if ends == _MOST_ENDS:
            raise ServiceError(f"the worker of the pool {pool} ended {ends} times, the last time by {problem}")
        await asyncio.sleep(_PAUSE_S * 2 ** (ends - 1))


def _make(pool: str) -> ProcessWorker:
    settings = get_current_settings().worker
    kind = SlotWorker if pool == "gpu" else InstalledWorker
    return kind(
        name=worker_name(pool),
        work_pool_name=pool,
        # With its own limit Prefect's worker (3.8.8) dies if a crashed run is rescheduled before the worker has
        # forgotten its process.
        limit=None,
        prefetch_seconds=settings.prefetch_seconds,
        heartbeat_interval_seconds=int(settings.heartbeat_seconds),
        create_pool_if_not_found=False,
    )


def _root(exc: BaseException) -> str:
    """Return an error's message in one line; for a group, which has no useful message, that of its first error."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"[:_LONGEST_WORDS]


async def _until_there(pool: str) -> None:
    # Not with Prefect's client: its pauses grow while it tries to reach a server that is still starting.
    api = get_current_settings().api
    url = f"{api.url}/work_pools/{pool}"
    user, _, password = (api.auth_string.get_secret_value() if api.auth_string else "").partition(":")
    headers = {**get_current_settings().client.custom_headers}
    if api.key:
        headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
    verify = not api.tls_insecure_skip_verify and (
        ssl.create_default_context(cafile=api.ssl_cert_file) if api.ssl_cert_file else True
    )
    auth = (user, password) if user else None
    async with httpx.AsyncClient(auth=auth, headers=headers, verify=verify, follow_redirects=True) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(_POLL_S)


def main(pools: Sequence[str]) -> NoReturn:
    """Run `serve` to the end of this process; on an error the exit message is the reason."""
    restore()
    lasting.last()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(serve(pools))
    except ExceptionGroup as error:
        logger.exception("the workers end")
        sys.exit(_root(error))
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:] or POOLS)
