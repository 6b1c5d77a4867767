"""`flowrl experts`: the library that the campaigns of a home have grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flowrl_core.types import View

if TYPE_CHECKING:
    from flowrl_core.storage.records.library import ExpertRecord, VersionRecord

__all__ = ["experts"]


def experts(
    expert: str | None = None,
    /,
    *,
    line: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """List the experts of the shared library and of those that campaigns have of their own, or the versions of one.

    Parameters
    ----------
    expert
        A global index or a skill's name: show the versions of that expert.
    line
        Only the library of this name: a campaign that was started with --fresh, or shared.
    as_json
        Print only JSON.
    """
    from flowrl_cli.request.inputs import existing_registry
    from flowrl_core.errors import InputError
    from flowrl_core.specs.campaign import SHARED

    home, registry = existing_registry()
    if registry is None:
        if expert is not None:
            raise InputError("expert", f"there is no expert {expert!r}", f"The library in {home.root} is empty")
        if line is not None:
            _check_line(line, set())
        _print_experts([], as_json)
        return
    with registry:
        if line is not None:
            _check_line(line, {campaign.line for campaign in registry.campaigns.all()})
        records = registry.library.experts()
        wanted = [one for one in records if line in (None, one.line or SHARED)]
        if expert is None:
            _print_experts(wanted, as_json)
        else:
            _check_expert(expert, wanted, records)
            found = _find(wanted, expert)
            _print_versions(found, registry.library.versions(found.global_index), as_json)


def _check_line(line: str, known: set[str]) -> None:
    from flowrl_cli.request.inputs import check_known
    from flowrl_core.specs.campaign import SHARED

    check_known("--line", "library", line, [SHARED, *sorted(known - {""})])


def _check_expert(expert: str, wanted: list[ExpertRecord], records: list[ExpertRecord]) -> None:
    from flowrl_cli.request.inputs import check_known
    from flowrl_core.errors import InputError
    from flowrl_core.specs.campaign import SHARED

    lines = {one.line or SHARED for one in records if expert in (one.name, str(one.global_index))}
    if lines and not lines & {one.line or SHARED for one in wanted}:
        remedy = f"Use --line {' or '.join(sorted(lines))}"
        raise InputError("expert", f"there is no expert {expert!r} in this library", remedy)
    check_known("expert", "expert", expert, {str(one.global_index) for one in wanted} | {one.name for one in wanted})


def _find(records: list[ExpertRecord], expert: str) -> ExpertRecord:
    """Return the expert of this index or name; each library and environment may have one of a name.

    Raises:
        InputError: there are several.
    """
    from flowrl_core.errors import InputError

    by_index = {str(record.global_index): record for record in records}
    # An earlier definition of a skill has an expert of the same name: the latest one is used.
    named = {(record.line, record.env): record for record in records if record.name == expert}
    if expert in by_index:
        return by_index[expert]
    lines = sorted({line for line, _ in named})
    if "" not in lines and len(lines) > 1:
        problem = f"{expert!r} has an expert in {len(lines)} libraries"
        raise InputError("expert", problem, f"Choose one with --line: {', '.join(lines)}")
    found = [record for (line, _), record in named.items() if line == lines[0]]
    if len(found) > 1:
        remedy = f"Choose one by its index: {', '.join(f'{one.global_index} ({one.env})' for one in found)}"
        raise InputError("expert", f"{expert!r} is a skill of {len(found)} environments", remedy)
    return found[0]


def _print_experts(records: list[ExpertRecord], as_json: bool) -> None:
    from flowrl_cli.views.tables import print_json, print_table
    from flowrl_core.specs.campaign import SHARED

    if as_json:
        print_json({"experts": [_expert(record) for record in records]})
    elif not records:
        print("The library has no experts yet")
    else:
        columns = ["expert", "skill", "env", "line", "identity", "head", "frames", "bundle"]
        columns += ["inputs", "actions", "width", "canonical view", "compass"]
        rows = [{**_expert(record), "line": record.line or SHARED} for record in records]
        table = [dict(zip(columns, row.values(), strict=True)) for row in rows]
        hidden = set() if any(record.line for record in records) else {"line"}
        hidden |= set() if len({record.env for record in records}) > 1 else {"env"}
        shown = [name for name in columns if name not in hidden]
        first = ("skill", "env", "line", "expert", "frames", "head", "bundle", "width")
        important = [name for name in first if name in shown]
        print_table(shown, [[row[name] for name in shown] for row in table], first=important)


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
    title = f"Expert {record.global_index}: {record.name}{f' of {record.line}' if record.line else ''}"
    first = ("version", "frames", "head", "parent", "run", "content")
    print_table(columns, [tuple(row.values()) for row in rows], title=title, first=first)


def _expert(record: ExpertRecord) -> dict[str, Any]:
    head = record.head
    return {
        "expert": record.global_index,
        "skill": record.name,
        "env": record.env,
        "line": record.line,
        "identity": record.identity,
        "head": head.id if head else None,
        "frames": head.frames if head else None,
        "bundle": record.bundle,
        "observation_size": record.observation_size,
        "num_actions": record.num_actions,
        "width": record.width,
        "canonical_view": View.CANONICAL in record.view,
        "compass": View.COMPASS in record.view,
    }
