"""`flowrl plan`: the plan that reaches a skill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated

from cyclopts import Parameter

__all__ = ["plan"]


def plan(
    target: str,
    /,
    *,
    env: str | None = None,
    knowledge: str = "",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Show the steps that reach a skill, if all skills may be used; the plan is proven by symbolic execution.

    A step is done only where what it keeps still holds: later steps need it.

    Parameters
    ----------
    target
        The skill to reach.
    env
        The environment (craftax-classic, unless a knowledge base is named).
    knowledge
        A TOML file, or the name of a shipped knowledge base.
    as_json
        Print only JSON.
    """
    from flowrl_cli.request.inputs import check_known, open_knowledge
    from flowrl_cli.views.tables import print_json, print_table, say
    from flowrl_core.errors import PlanError
    from flowrl_core.skills.planner import make_plan
    from flowrl_core.skills.symbolic import kept

    base = open_knowledge(env, knowledge)
    check_known("target", "skill", target, base.skills)
    try:
        made = make_plan(base, target)
    except PlanError:
        if as_json:
            print_json({"target": target, "steps": [], "valid": False})
        raise
    made, beginning = replace(made, guards=base.skills[target].guards), base.skills[target].begins_as
    keeps = kept(made, base.skills, base.fluents)
    if as_json:
        steps = [
            {**asdict(step), "description": base.skills[step.skill].description, "keeps": dict(amounts)}
            for step, amounts in zip(made.steps, keeps, strict=True)
        ]
        print_json({**made.as_dict(), "begins_as": beginning, "steps": steps, "valid": True})
        return 0
    rows = [
        (i, step.skill, step.n, _held(amounts), base.skills[step.skill].description)
        for i, (step, amounts) in enumerate(zip(made.steps, keeps, strict=True), start=1)
    ]
    columns = ("step", "skill", "n", "keeps for later", "what it is")
    print_table(columns, rows, title=f"Plan for {target}", prose=["keeps for later", "what it is"])
    for name in made.guards:
        guard = base.skills[name].guard
        assert guard is not None  # the knowledge base was checked
        say(f"Guarded by {name}, once learned: from {guard.takes_over} until {guard.gives_back}")
    if beginning is not None:
        say(f"Begins as {beginning}, once learned")
    return 0


def _held(amounts: Mapping[str, int]) -> str:
    """Return what a step must leave: amounts of items, and places."""
    held = (f"{n} {name.removeprefix('inv.')}" if name.startswith("inv.") else name for name, n in amounts.items())
    return ", ".join(held)
