"""`flowrl experts`: the library that the campaigns of a home have grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from flowrl_core.storage.records.library import ExpertRecord, VersionRecord
    from flowrl_core.storage.registry import Registry

__all__ = ["experts"]


def experts(
    expert: str | None = None,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """List the experts of the library, or the versions of one.

    Parameters
    ----------
    expert
        A global index or a skill's name: show the versions of that expert.
    as_json
        Print only JSON.
    """
    from flowrl_cli.request.inputs import existing_registry
    from flowrl_core.errors import InputError

    home, registry = existing_registry()
    if registry is None:
        if expert is not None:
            raise InputError("expert", f"there is no expert {expert!r}", f"The library in {home.root} is empty")
        _print_experts([], as_json)
        return
    with registry:
        if expert is None:
            _print_experts(registry.library.experts(), as_json)
        else:
            found = _find(registry, expert)
            _print_versions(found, registry.library.versions(found.global_index), as_json)


def _find(registry: Registry, expert: str) -> ExpertRecord:
    from flowrl_cli.request.inputs import check_known

    # An earlier definition of a skill has an expert of the same name: the latest one is meant.
    by_name = {record.name: record for record in registry.library.experts()}
    by_name |= {str(record.global_index): record for record in registry.library.experts()}
    check_known("expert", "expert", expert, by_name)
    return by_name[expert]


def _print_experts(records: list[ExpertRecord], as_json: bool) -> None:
    from flowrl_cli.views.tables import print_json, print_table

    if as_json:
        print_json({"experts": [_expert(record) for record in records]})
    elif not records:
        print("The library has no experts yet")
    else:
        columns = ("expert", "skill", "identity", "head", "frames", "bundle", "inputs", "actions", "width")
        rows = [tuple(_expert(record).values()) for record in records]
        print_table(columns, rows, first=("skill", "expert", "frames", "head", "bundle", "width"))


def _print_versions(record: ExpertRecord, versions: list[VersionRecord], as_json: bool) -> None:
    from flowrl_cli.views.tables import print_json, print_table

    head = record.head.id if record.head else None
    rows = [
        {
            "id": version.id,
            "content": version.content,
            "frames": version.frames,
            "parent": version.parent,
            "run": version.run,
            "is_head": version.id == head,
        }
        for version in versions
    ]
    if as_json:
        print_json({**_expert(record), "versions": rows})
        return
    columns = ("version", "content", "frames", "parent", "run", "head")
    title = f"Expert {record.global_index}: {record.name}"
    first = ("version", "frames", "head", "parent", "run", "content")
    print_table(columns, [tuple(row.values()) for row in rows], title=title, first=first)


def _expert(record: ExpertRecord) -> dict[str, Any]:
    head = record.head
    return {
        "expert": record.global_index,
        "skill": record.name,
        "identity": record.identity,
        "head": head.id if head else None,
        "frames": head.frames if head else None,
        "bundle": record.bundle,
        "observation_size": record.observation_size,
        "num_actions": record.num_actions,
        "width": record.width,
    }
