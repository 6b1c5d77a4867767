"""Create the deployments of prefect.yaml on a server as `prefect deploy --all` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flowrl_core.errors import StorageError
from flowrl_core.installation import ROOT

__all__ = ["document", "ensure_deployments", "entrypoint_here", "flow_of", "form_of"]

_EARLIER_PULLS: tuple[list[dict[str, Any]], ...] = ([{"tasks.orchestration.installation.enter": {}}],)
"""The pull steps that identify deployments of earlier versions."""


async def ensure_deployments(client: PrefectClient, *, update: bool) -> None:
    """Create the deployments on a server that has their pools.

    Users' changes on the server are kept: schedules, parameters and whether a deployment is paused.

    Args:
        update: whether to update existing deployments; otherwise only missing ones are added.

    Raises:
        StorageError: there is no prefect.yaml.
    """
    wanted = document()
    for entry in wanted["deployments"]:
        await _ensure(client, entry, wanted["pull"], update=update)


def document() -> dict[str, Any]:
    """Return the content of prefect.yaml.

    Raises:
        StorageError: there is none.
    """
    path = ROOT / "prefect.yaml"
    try:
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise StorageError(f"{path} is missing: reinstall FlowRL") from exc
    return found


def entrypoint_here(deployment: DeploymentResponse) -> str | None:
    """Return the entry point in this installation of a FlowRL deployment's flow; None for other deployments.

    A deployment of an earlier version may name a file that has moved since. The flow function's name stays the same.
    """
    here = document()
    if deployment.pull_steps not in (here["pull"], *_EARLIER_PULLS):
        return None
    function = (deployment.entrypoint or "").rpartition(":")[2]
    entrypoints = [entry["entrypoint"] for entry in here["deployments"]]
    return next((one for one in entrypoints if one.rpartition(":")[2] == function), deployment.entrypoint)


def flow_of(entry: dict[str, Any]) -> Flow[..., Any]:
    """Return the flow of a deployment."""
    path, function = entry["entrypoint"].split(":")
    module = Path(path).with_suffix("").as_posix().replace("/", ".")
    return load_flow_from_entrypoint(f"{module}.{function}", use_placeholder_flow=False)


def form_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """Return the parameter schema of the flow, as sent to the server."""
    return parameter_schema(flow).model_dump(exclude_unset=True)


async def _ensure(client: PrefectClient, entry: dict[str, Any], pull: list[dict[str, Any]], *, update: bool) -> None:
    flow = flow_of(entry)
    wanted = _code(entry, flow, pull)
    try:
        there = await client.read_deployment_by_name(f"{flow.name}/{entry['name']}")
    except ObjectNotFound:
        flow_id = await client.create_flow_from_name(flow.name)
        await client.create_deployment(flow_id=flow_id, name=entry["name"], **wanted, **_first(entry))
        return
    if update:
        await client.update_deployment(there.id, DeploymentUpdate(**wanted))


def _code(entry: dict[str, Any], flow: Flow[..., Any], pull: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields that follow from the code and the file."""
    pool, alone = entry["work_pool"], entry.get("concurrency_limit", {})
    strategy = alone.get("collision_strategy")
    return {
        "version": flow.version,
        "description": entry["description"],
        "tags": entry["tags"],
        "entrypoint": entry["entrypoint"],
        "work_pool_name": pool["name"],
        "work_queue_name": pool["work_queue_name"],
        "job_variables": pool["job_variables"],
        "pull_steps": pull,
        "concurrency_limit": alone.get("limit"),
        "concurrency_options": ConcurrencyOptions(collision_strategy=strategy) if strategy else None,
        "parameter_openapi_schema": form_of(flow),
        "enforce_parameter_schema": entry.get("enforce_parameter_schema", True),
    }


def _first(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the initial values of fields that users may change later."""
    schedules = [
        DeploymentScheduleCreate(
            slug=one["slug"],
            schedule=CronSchedule(cron=one["cron"], timezone=one["timezone"]),
            active=one["active"],
        )
        for one in entry.get("schedules", [])
    ]
    return {"parameters": entry.get("parameters", {}), "schedules": schedules}
