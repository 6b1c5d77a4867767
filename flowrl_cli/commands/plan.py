"""`flowrl plan`: the plan that reaches a skill."""

from __future__ import annotations

from dataclasses import asdict
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
    from flowrl_cli.views.tables import print_json, print_table
    from flowrl_core.errors import PlanError
    from flowrl_core.skills.planner import make_plan

    base = open_knowledge(env, knowledge)
    check_known("target", "skill", target, base.skills)
    try:
        made = make_plan(base, target)
    except PlanError:
        if as_json:
            print_json({"target": target, "steps": [], "valid": False})
        raise
    if as_json:
        steps = [{**asdict(step), "description": base.skills[step.skill].description} for step in made.steps]
        print_json({**made.as_dict(), "steps": steps, "valid": True})
        return 0
    rows = [(i, step.skill, step.n, base.skills[step.skill].description) for i, step in enumerate(made.steps, start=1)]
    print_table(("step", "skill", "n", "what it is"), rows, title=f"Plan for {target}", prose=["what it is"])
    return 0
